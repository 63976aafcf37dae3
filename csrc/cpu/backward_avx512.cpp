#include "cpu/target_avx512.h"
//
#include "cpu/level/backward.inl"
#include "cpu/target_end.h"
