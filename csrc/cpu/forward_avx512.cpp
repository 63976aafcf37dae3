#include "cpu/target_avx512.h"
//
#include "cpu/level/forward.inl"
#include "cpu/target_end.h"
