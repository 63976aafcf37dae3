#include "cpu/target_avx2.h"
//
#include "cpu/level/products.inl"
#include "cpu/target_end.h"
