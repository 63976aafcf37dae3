#include "cpu/target_avx512.h"
//
#include "cpu/level/products.inl"
#include "cpu/target_end.h"
