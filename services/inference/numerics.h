// In what precision the engine computes.
#ifndef SERVICES_INFERENCE_NUMERICS_H_
#define SERVICES_INFERENCE_NUMERICS_H_

#include "kernels/base/cpu_features.h"

namespace onegrid::inference {

enum class Precision {
  kInt8,  // as served
  kF32,   // for comparison with a float reference
};

struct Numerics {
  // kInt8: the input of every linear in groups of 32, exact integer dot
  // products; two such terms for q, k, v and the head. kF32: dequantized
  // weights times f32.
  Precision activations = Precision::kInt8;
  // kInt8: K rotated by a Hadamard matrix with one scale per token and head, V
  // in groups of 32.
  Precision kv_cache = Precision::kInt8;
  // Must be supported by the processor.
  kernels::Isa isa = kernels::BestIsa();
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_NUMERICS_H_
