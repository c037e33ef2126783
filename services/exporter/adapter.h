// A trained LoRA adapter, read and checked.
#ifndef SERVICES_EXPORTER_ADAPTER_H_
#define SERVICES_EXPORTER_ADAPTER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/model/safetensors.h"
#include "services/model/tensor_names.h"

namespace onegrid::exporter {

// The two matrices of one linear, F32 little-endian, row-major.
struct AdapterPair {
  model::LinearSpec spec;
  int64_t rank = 0;
  double scale = 0;    // The layer computes W x + scale * B (A x).
  std::string a_name;  // Key in the adapter file.
  std::string b_name;
  absl::Span<const uint8_t> a;  // [rank, in]
  absl::Span<const uint8_t> b;  // [out, rank]
};

// Thread-safe after Open. Spans live as long as the adapter.
class Adapter {
 public:
  // Reads a safetensors file with PEFT's key names
  // (base_model.model.{hf name}.lora_A.weight and .lora_B.weight) and
  // the adapter_config.json that belongs to it.
  //
  // INVALID_ARGUMENT (CORRUPT_FILE), naming file and tensor or field: a key
  // that is not a linear's, half a pair, a type other than F32, a shape that
  // does not fit, a rank other than the config's r or rank_pattern, a config
  // that is not JSON or asks for bias, modules_to_save or use_dora: the adapter
  // files of llama.cpp cannot carry DoRA's magnitude vectors. Keys of
  // rank_pattern and alpha_pattern are module names or their ends; PEFT takes
  // them for regular expressions, of which no others are read.
  static absl::StatusOr<std::unique_ptr<Adapter>> Open(
      const std::string& path, const std::string& config_path,
      const std::vector<model::LinearSpec>& linears);

  // llama.cpp knows one alpha for the file and scales each pair by alpha /
  // rank: the value that is right for most pairs, and B of a pair as it must be
  // for its scale to come out: B itself for those, else B times a factor,
  // rounded to F32.
  float gguf_alpha() const { return gguf_alpha_; }
  std::vector<uint8_t> GgufB(const AdapterPair& pair) const;
  const std::string& config_json() const { return config_json_; }
  // In the order of the model's linears.
  const std::vector<AdapterPair>& pairs() const { return pairs_; }

 private:
  // A value for the modules whose name is the key or ends in it.
  using Pattern = std::vector<std::pair<std::string, double>>;

  Adapter() = default;
  absl::Status ReadConfig(const std::string& config_path);
  absl::Status AddPair(const std::string& path, const model::LinearSpec& spec);
  void ChooseGgufAlpha();

  std::unique_ptr<model::SafetensorsFile> file_;
  std::string config_json_;
  double alpha_ = 0;
  int64_t rank_ = 0;
  Pattern alpha_pattern_;
  Pattern rank_pattern_;
  bool use_rslora_ = false;
  float gguf_alpha_ = 0;
  std::vector<AdapterPair> pairs_;
};

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_ADAPTER_H_
