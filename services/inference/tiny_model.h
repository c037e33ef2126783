// A Gemma of random weights, small enough for unit tests.
#ifndef SERVICES_INFERENCE_TINY_MODEL_H_
#define SERVICES_INFERENCE_TINY_MODEL_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/quant/ggml_types.h"
#include "services/model/gemma_config.h"

namespace onegrid::inference {

// A Gemma 3's shape: 4 layers (the third global, a window of 16 in the others),
// hidden 64, ff 96, 4 heads of 32 over 2 key/value heads, a context of 256.
inline constexpr int kTinyVocab = 320;
inline constexpr int kTinyWindow = 16;
inline constexpr int kTinyContext = 256;
// Tokens 0..3 are pad, eos, bos and unk, 4..259 the bytes, 260 <end_of_turn>;
// kTinyLetterA and the 25 after it are "a" to "z", the rest is "▁" and unused.
inline constexpr int32_t kTinyEos = 1;
inline constexpr int32_t kTinyBos = 2;
inline constexpr int32_t kTinyFirstByte = 4;
inline constexpr int32_t kTinyLetterA = 261;

// Those of Gemma 4, global heads of 64: as E2B, 8 layers with inputs of their
// own, the last four with a wider MLP and the keys of earlier ones; as 26B-A4B,
// 4 layers with experts, whose global values are the keys.
enum class TinyStructure { kGemma3, kGemma4Edge, kGemma4Experts };

model::GemmaConfig TinyConfig(TinyStructure structure);

struct TinyModelOptions {
  TinyStructure structure = TinyStructure::kGemma3;
  uint64_t seed = 1;
  // Of matrices by name: Q4_0, Q2_0, Q8_0, BF16, or F32, which the engine does
  // not take. Else linears are Q4_0, tables and what is outside layers Q8_0.
  std::map<std::string, quant::GgmlType> types;
  std::vector<int32_t> suppressed_tokens = {};
  bool own_head = false;  // not the embedding, Q8_0 unless `types` says
};

// Every type that the engine takes, in both kinds of layers: attn_q and
// attn_output Q8_0; ffn_gate of all layers, ffn_up of the last and attn_v of
// the first Q2_0; the embedding Q4_0.
TinyModelOptions MixedTinyModel();

// Writes the model as GGUF. Same options, same bytes.
absl::Status WriteTinyModel(const std::string& path,
                            const TinyModelOptions& options = {});

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_TINY_MODEL_H_
