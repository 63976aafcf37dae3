#include "cpu/target_avx2.h"
//
#include "cpu/level/forward.inl"
#include "cpu/target_end.h"
