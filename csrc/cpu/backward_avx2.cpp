#include "cpu/target_avx2.h"
//
#include "cpu/level/backward.inl"
#include "cpu/target_end.h"
