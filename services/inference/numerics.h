// In what precision the engine computes.
//
// As served (both kInt8), a trainer that wants to see what will be served must
// simulate the following; the functions named are the scalar form of each rule,
// in kernels/quant/int8_activations.h, and hold whatever grid the weights are
// on. Everything not named is f32 without further rounding: embedding row times
// sqrt(hidden), residual stream, RMS norms, rotary positions, GELU(tanh) * up;
// in Gemma 4 the router with its softmax, the weighted sum of experts, what
// becomes of each layer's own input, layer scales and the logits' soft cap.
//
//   input of attn_q, attn_k, attn_v       FakeQuantizeInt16
//   input of the head (output_norm's      FakeQuantizeInt16
//     output)
//   input of attn_output, ffn_gate,       FakeQuantizeInt8
//     ffn_up, ffn_down; in Gemma 4 of
//     inp_gate and proj, and of the
//     experts' two linears
//   input of per_layer_model_proj (the    FakeQuantizeInt16
//     scaled embedding), Gemma 4
//   key: after k_norm and rotation by     FakeQuantizeKey, for each token and
//     position                              key/value head
//   value: as attn_v gives it, in Gemma   FakeQuantizeInt8
//     4 normed to a mean square of 1
//
// - Groups of 32 run along the input, from its start; 32 divides every input
//   and the head size, so a group never spans two heads. The scale is the
//   group's amax / 127 in f32 (not dual-exact, never calibrated: each token has
//   its own), codes are -127..127, rounded half to even; of int16 amax / 32767
//   and -32767..32767.
// - A linear is exact but for f32 sums: in each group an integer dot product,
//   times weight scale, times activation scale, summed over groups. Its output
//   is f32.
// - Queries are rotated like keys, which changes no product, and kept in
//   int16 with one scale a row, which no simulation needs.
//   Scores and softmax (online, no soft cap) are f32; the scale of attention
//   goes into the query's. Probabilities are kept in 16 bits of the largest
//   among 256 keys, and scales of values in 16 bits of a token's largest: no
//   simulation needs either.
// - A token's own key and value are read back from the cache like all others.
//
// This is near enough to train with. The served arithmetic to the last bit, the
// same on every instruction set, is in kernels/reference/served_ops.h.
#ifndef SERVICES_INFERENCE_NUMERICS_H_
#define SERVICES_INFERENCE_NUMERICS_H_

#include "kernels/base/cpu_features.h"

namespace onegrid::inference {

enum class Precision {
  kInt8,  // as served
  kF32,   // for comparison with a float reference
  kBf16,  // as other servers keep keys and values; of the cache only
};

inline const char* PrecisionName(Precision precision) {
  switch (precision) {
    case Precision::kInt8:
      return "int8";
    case Precision::kF32:
      return "f32";
    case Precision::kBf16:
      break;
  }
  return "bf16";
}

struct Numerics {
  // kInt8: the input of every linear in groups of 32, exact integer dot
  // products; of int16 for q, k, v and the head. kF32: dequantized
  // weights times f32.
  Precision activations = Precision::kInt8;
  // kInt8: K rotated by a Hadamard matrix with one scale per token and head, V
  // in groups of 32. kBf16: each rounded by itself.
  Precision kv_cache = Precision::kInt8;
  // Must be supported by the processor.
  kernels::Isa isa = kernels::BestIsa();
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_NUMERICS_H_
