#include "cpu/target_avx512.h"
//
#include "cpu/level/recurrent.inl"
#include "cpu/target_end.h"
