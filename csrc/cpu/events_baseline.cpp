#include "cpu/target_baseline.h"
//
#include "cpu/level/products.inl"
