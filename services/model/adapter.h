// A LoRA adapter, of a job of ours or of others, read and checked.
#ifndef SERVICES_MODEL_ADAPTER_H_
#define SERVICES_MODEL_ADAPTER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/common/adapter_files.h"
#include "services/model/gguf_reader.h"
#include "services/model/safetensors.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {

// The two matrices of one linear, F32 little-endian, row-major.
struct AdapterPair {
  LinearSpec spec;
  int64_t rank = 0;
  double alpha = 0;
  double scale = 0;    // The layer computes W x + scale * B (A x).
  std::string a_name;  // PEFT's keys for a text model.
  std::string b_name;
  absl::Span<const uint8_t> a;  // [rank, in]
  absl::Span<const uint8_t> b;  // [out, rank]
};

// Thread-safe after Open. Spans live as long as the adapter.
class Adapter {
 public:
  // OpenPeft, or OpenGguf if there is no config.
  static absl::StatusOr<std::unique_ptr<Adapter>> Open(
      const common::AdapterFiles& files, const std::string& architecture,
      const std::vector<LinearSpec>& linears);

  // Reads a safetensors file (F32, F16, BF16) with PEFT's key names,
  // base_model.model.{module}.lora_A.weight and .lora_B.weight, where module is
  // a linear's Hugging Face name, also as multimodal checkpoints have it
  // (model.language_model.layers..., language_model.model.layers...), and its
  // adapter_config.json.
  //
  // Errors of the readers below and of PeftConfig. DataLoss (CORRUPT_FILE;
  // path): half a pair, a linear twice, matrices that do not fit each other or
  // the config, a value that is not finite, no pair at all. InvalidArgument,
  // naming file and tensor: UNSUPPORTED_ADAPTER: a tensor that is no linear's A
  // or B (embeddings, heads, DoRA's magnitudes, whole modules, experts), or of
  // another type; ADAPTER_MISMATCH: a linear that the base has not, or has in
  // another shape.
  static absl::StatusOr<std::unique_ptr<Adapter>> OpenPeft(
      const std::string& path, const std::string& config_path,
      const std::vector<LinearSpec>& linears);

  // Reads a GGUF of llama.cpp (src/llama-adapter.cpp, convert_lora_to_gguf.py):
  // general.type "adapter", adapter.type "lora", general.architecture the
  // base's, and NAME.lora_a, NAME.lora_b of tensors NAME in any type that
  // GgufFile reads. Scale is adapter.lora.alpha / rank; 1 if that is 0 or
  // missing. Errors as above; ADAPTER_MISMATCH: another architecture. llama.cpp
  // skips norms that are in the file; here they are UNSUPPORTED_ADAPTER.
  static absl::StatusOr<std::unique_ptr<Adapter>> OpenGguf(
      const std::string& path, const std::string& architecture,
      const std::vector<LinearSpec>& linears);

  // llama.cpp knows one alpha for the file and scales each pair by alpha /
  // rank: the value that is right for most pairs, and B of a pair as it must be
  // for its scale to come out: B itself for those, else B times a factor,
  // rounded to F32.
  float gguf_alpha() const { return gguf_alpha_; }
  std::vector<uint8_t> GgufB(const AdapterPair& pair) const;
  // adapter_config.json; empty: read from a GGUF.
  const std::string& config_json() const { return config_json_; }
  bool use_rslora() const { return use_rslora_; }
  // In the order of the model's linears; one at least.
  const std::vector<AdapterPair>& pairs() const { return pairs_; }

 private:
  friend class AdapterReader;

  Adapter() = default;
  void ChooseGgufAlpha();

  std::unique_ptr<SafetensorsFile> safetensors_;  // Either of them.
  std::unique_ptr<GgufFile> gguf_;
  // What was not F32 in the file.
  std::vector<std::vector<uint8_t>> decoded_;
  std::string config_json_;
  bool use_rslora_ = false;
  float gguf_alpha_ = 0;
  std::vector<AdapterPair> pairs_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_ADAPTER_H_
