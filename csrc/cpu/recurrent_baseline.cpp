#include "cpu/target_baseline.h"
//
#include "cpu/level/recurrent.inl"
