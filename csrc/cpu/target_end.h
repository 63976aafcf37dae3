// What comes last in a source that is compiled for a level above the baseline.
#if defined(__clang__)
#pragma clang attribute pop
#endif
