// Everything in one translation unit, for one PTX.
#include "attention_blend.cu"
#include "finish.cu"
#include "prepare.cu"
