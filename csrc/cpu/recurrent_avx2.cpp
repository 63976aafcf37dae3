#include "cpu/target_avx2.h"
//
#include "cpu/level/recurrent.inl"
#include "cpu/target_end.h"
