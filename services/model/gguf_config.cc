#include <algorithm>
#include <cmath>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"
#include "services/model/gemma_config.h"
#include "services/model/gemma_limits.h"
#include "services/model/mapped_file.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

constexpr char kSupported[] = "gemma3, gemma4";

// One number per layer.
using PerLayer = std::vector<int64_t>;

class GgufConfigReader {
 public:
  explicit GgufConfigReader(const GgufFile& file) : file_(file) {}

  absl::StatusOr<GemmaConfig> Read();

 private:
  absl::Status ReadFamily();
  absl::Status ReadShape();
  absl::Status ReadLayers();
  absl::Status ReadGemma3Layers();
  absl::Status ReadGemma4Layers(int64_t head_dim);
  absl::Status ReadRope();
  absl::Status ReadRopeFactors();
  absl::Status ReadPerLayerInputs();
  absl::Status ReadExperts();
  absl::Status ReadSoftcap();
  absl::Status ReadTokenIds();
  absl::Status CheckLayers() const;
  absl::Status CheckTensors() const;
  absl::Status CheckTensor(const std::string& name,
                           const std::vector<int64_t>& dims) const;

  std::string Key(const std::string& name) const {
    return absl::StrCat(architecture_, ".", name);
  }
  absl::Status Unsupported(const std::string& found,
                           const std::string& message) const;
  absl::Status Corrupt(const std::string& message) const {
    return CorruptFile(file_.path(), message);
  }
  // A number from 1 to max, or from 0 with `optional`, which may be missing.
  absl::Status Int(const std::string& name, int64_t max, int64_t& value,
                   bool optional = false) const;
  absl::Status Real(const std::string& name, double& value) const;
  // One number for all layers or an array of one for each.
  absl::StatusOr<PerLayer> Numbers(const std::string& name) const;

  const GgufFile& file_;
  std::string architecture_;
  int64_t count_ = 0;  // of layers
  GemmaConfig config_;
};

absl::Status GgufConfigReader::Unsupported(const std::string& found,
                                           const std::string& message) const {
  return common::MakeError(
      absl::StatusCode::kUnimplemented, "UNSUPPORTED_ARCHITECTURE",
      absl::StrCat(file_.path(), ": ", message),
      {{"path", file_.path()}, {"found", found}, {"supported", kSupported}});
}

absl::Status GgufConfigReader::Int(const std::string& name, int64_t max,
                                   int64_t& value, bool optional) const {
  if (optional && !file_.Has(Key(name))) return absl::OkStatus();
  ASSIGN_OR_RETURN(value, file_.GetU32(Key(name)));
  const int64_t min = optional ? 0 : 1;
  if (value >= min && value <= max) return absl::OkStatus();
  return Corrupt(absl::StrCat(Key(name), ": expected ", min, " to ", max,
                              ", found ", value));
}

absl::Status GgufConfigReader::Real(const std::string& name,
                                    double& value) const {
  ASSIGN_OR_RETURN(value, file_.GetF32(Key(name)));
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return Corrupt(
      absl::StrCat(Key(name), ": expected a positive number, found ", value));
}

absl::StatusOr<PerLayer> GgufConfigReader::Numbers(
    const std::string& name) const {
  const std::string key = Key(name);
  PerLayer values;
  const auto it = file_.metadata().find(key);
  if (it == file_.metadata().end()) return file_.GetU32(key).status();
  if (const auto* u = std::get_if<std::vector<uint32_t>>(&it->second)) {
    values.assign(u->begin(), u->end());
  } else if (const auto* i = std::get_if<std::vector<int32_t>>(&it->second)) {
    values.assign(i->begin(), i->end());
  } else {
    ASSIGN_OR_RETURN(const uint32_t value, file_.GetU32(key));
    values.assign(count_, value);
  }
  if (static_cast<int64_t>(values.size()) != count_) {
    return Corrupt(absl::StrCat("metadata key '", key, "': expected ", count_,
                                " numbers, one for each layer, found ",
                                values.size()));
  }
  for (const int64_t value : values) {
    if (value < 1 || value > kWidthMax) {
      return Corrupt(
          absl::StrCat(key, ": expected 1 to ", kWidthMax, ", found ", value));
    }
  }
  return values;
}

absl::Status GgufConfigReader::ReadFamily() {
  ASSIGN_OR_RETURN(architecture_, file_.GetString("general.architecture"));
  for (const GemmaFamily family :
       {GemmaFamily::kGemma3, GemmaFamily::kGemma4}) {
    config_.family = family;
    if (architecture_ == ArchitectureName(family)) return absl::OkStatus();
  }
  return Unsupported(
      architecture_,
      absl::StrCat("unsupported architecture: found '", architecture_,
                   "', supported: ", kSupported, " (text)"));
}

absl::Status GgufConfigReader::ReadShape() {
  RETURN_IF_ERROR(Int("embedding_length", kWidthMax, config_.hidden));
  RETURN_IF_ERROR(Int("block_count", kLayersMax, count_));
  RETURN_IF_ERROR(Int("context_length", kPositionsMax, config_.context_length));
  RETURN_IF_ERROR(
      Int("attention.sliding_window", kPositionsMax, config_.sliding_window));
  RETURN_IF_ERROR(Real("attention.layer_norm_rms_epsilon", config_.rms_eps));
  const GgufFile::Tensor* embedding = file_.Find(kGgufEmbedding);
  if (embedding == nullptr) {
    return Corrupt(absl::StrCat("tensor '", kGgufEmbedding, "' is missing"));
  }
  config_.vocab_size = embedding->rows();
  if (config_.vocab_size < 1 || config_.vocab_size > kVocabularyMax) {
    return Corrupt(absl::StrCat(
        "vocabulary (rows of token_embd.weight): ", "expected 1 to ",
        kVocabularyMax, ", found ", config_.vocab_size));
  }
  return absl::OkStatus();
}

absl::Status GgufConfigReader::ReadLayers() {
  int64_t head_dim = 0, value_length = 0;
  RETURN_IF_ERROR(Int("attention.key_length", kWidthMax, head_dim));
  RETURN_IF_ERROR(Int("attention.value_length", kWidthMax, value_length));
  if (value_length != head_dim) {
    return Unsupported(
        absl::StrCat(value_length),
        absl::StrCat(Key("attention.value_length"), " (", value_length,
                     ") differs from key_length (", head_dim, ")"));
  }
  ASSIGN_OR_RETURN(const PerLayer heads, Numbers("attention.head_count"));
  if (std::any_of(heads.begin(), heads.end(),
                  [&](int64_t n) { return n != heads[0]; })) {
    return Unsupported(
        absl::StrJoin(heads, ","),
        absl::StrCat("metadata key '", Key("attention.head_count"),
                     "' differs between layers"));
  }
  config_.heads = heads[0];
  ASSIGN_OR_RETURN(const PerLayer kv_heads, Numbers("attention.head_count_kv"));
  ASSIGN_OR_RETURN(const PerLayer ff, Numbers("feed_forward_length"));
  for (int64_t i = 0; i < count_; ++i) {
    config_.layers.push_back({.global = false,
                              .head_dim = head_dim,
                              .kv_heads = kv_heads[i],
                              .ff = ff[i],
                              .kv_source = i});
  }
  RETURN_IF_ERROR(config_.family == GemmaFamily::kGemma3
                      ? ReadGemma3Layers()
                      : ReadGemma4Layers(head_dim));
  return CheckLayers();
}

absl::Status GgufConfigReader::ReadGemma3Layers() {
  int64_t pattern = kDefaultPattern;
  const std::string name = "attention.sliding_window_pattern";
  if (file_.Has(Key(name))) RETURN_IF_ERROR(Int(name, kWidthMax, pattern));
  for (int64_t i = 0; i < count_; ++i) {
    GemmaLayer& layer = config_.layers[i];
    layer.global = (i + 1) % pattern == 0;
    if (layer.kv_heads != config_.layers[0].kv_heads ||
        layer.ff != config_.layers[0].ff) {
      return Unsupported(
          absl::StrCat("layer ", i),
          absl::StrCat("metadata key '", Key("attention.head_count_kv"),
                       "' or '", Key("feed_forward_length"),
                       "' differs between layers, which Gemma 3 has not"));
    }
  }
  config_.attention_scale = Gemma3AttentionScale(config_);
  return absl::OkStatus();
}

absl::Status GgufConfigReader::ReadGemma4Layers(int64_t head_dim) {
  int64_t sliding_dim = 0, value_length = 0, shared = 0;
  RETURN_IF_ERROR(Int("attention.key_length_swa", kWidthMax, sliding_dim));
  RETURN_IF_ERROR(Int("attention.value_length_swa", kWidthMax, value_length));
  if (value_length != sliding_dim) {
    return Unsupported(absl::StrCat(value_length),
                       absl::StrCat(Key("attention.value_length_swa"),
                                    " differs from key_length_swa"));
  }
  const std::string key = Key("attention.sliding_window_pattern");
  const auto it = file_.metadata().find(key);
  const auto* sliding = it == file_.metadata().end()
                            ? nullptr
                            : std::get_if<std::vector<bool>>(&it->second);
  if (sliding == nullptr || static_cast<int64_t>(sliding->size()) != count_) {
    return Corrupt(absl::StrCat("metadata key '", key, "': expected ", count_,
                                " booleans, one for each layer"));
  }
  for (int64_t i = 0; i < count_; ++i) {
    config_.layers[i].global = !(*sliding)[i];
    config_.layers[i].head_dim = (*sliding)[i] ? sliding_dim : head_dim;
  }
  RETURN_IF_ERROR(
      Int("attention.shared_kv_layers", count_, shared, /*optional=*/true));
  if (!ShareKv(shared, config_.layers)) {
    return Corrupt(absl::StrCat(
        Key("attention.shared_kv_layers"), ": ", shared, " of ", count_,
        " leaves no layer of each kind to take keys and values from"));
  }
  // Global layers may do without a projection of values; the converter has no
  // key for it.
  for (int64_t i = 0; i < count_; ++i) {
    GemmaLayer& layer = config_.layers[i];
    layer.value_is_key =
        layer.global && config_.HasKv(i) &&
        file_.Find(absl::StrCat("blk.", i, ".attn_v.weight")) == nullptr;
  }
  config_.attention_scale = 1;
  return absl::OkStatus();
}

absl::Status GgufConfigReader::CheckLayers() const {
  for (int64_t i = 0; i < count_; ++i) {
    const GemmaLayer& layer = config_.layers[i];
    if (config_.heads % layer.kv_heads != 0) {
      return Corrupt(absl::StrCat(
          Key("attention.head_count"), " (", config_.heads,
          ") is not a multiple of head_count_kv (", layer.kv_heads, ")"));
    }
    if (layer.head_dim % 2 != 0) {
      return Corrupt(absl::StrCat(Key("attention.key_length"),
                                  ": expected an even number, found ",
                                  layer.head_dim));
    }
    const GemmaLayer& source = config_.layers[layer.kv_source];
    if (source.kv_heads != layer.kv_heads) {
      return Corrupt(absl::StrCat(Key("attention.head_count_kv"), ": layer ", i,
                                  " has ", layer.kv_heads, ", but layer ",
                                  layer.kv_source, ", whose keys it reads, ",
                                  source.kv_heads));
    }
  }
  return absl::OkStatus();
}

absl::Status GgufConfigReader::ReadRope() {
  RETURN_IF_ERROR(Real("rope.freq_base", config_.rope_theta_global));
  if (file_.Has(Key("rope.freq_base_swa"))) {
    RETURN_IF_ERROR(Real("rope.freq_base_swa", config_.rope_theta_local));
  }
  RETURN_IF_ERROR(ReadRopeFactors());
  if (!file_.Has(Key("rope.scaling.type"))) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string type,
                   file_.GetString(Key("rope.scaling.type")));
  if (type == "none") return absl::OkStatus();
  if (type != "linear" || config_.family != GemmaFamily::kGemma3) {
    return Unsupported(type, absl::StrCat(Key("rope.scaling.type"),
                                          ": expected 'linear' (Gemma 3) or "
                                          "'none', found '",
                                          type, "'"));
  }
  return Real("rope.scaling.factor", config_.rope_scaling_factor);
}

absl::Status GgufConfigReader::ReadRopeFactors() {
  const GgufFile::Tensor* tensor = file_.Find(kGgufRopeFactors);
  if (config_.family == GemmaFamily::kGemma3 || tensor == nullptr) {
    return absl::OkStatus();
  }
  if (tensor->type != quant::GgmlType::kF32) {
    return Corrupt(absl::StrCat("tensor '", kGgufRopeFactors, "' is not F32"));
  }
  const absl::Span<const float> factors(
      reinterpret_cast<const float*>(tensor->data.data()),
      tensor->data.size() / sizeof(float));
  config_.rope_global_pairs =
      std::find_if(factors.begin(), factors.end(),
                   [](float factor) { return factor != 1.0f; }) -
      factors.begin();
  const std::vector<float> expected = RopeFactors(config_);
  if (config_.rope_global_pairs == 0 ||
      !std::equal(factors.begin(), factors.end(), expected.begin(),
                  expected.end())) {
    return Unsupported(kGgufRopeFactors,
                       absl::StrCat("tensor '", kGgufRopeFactors,
                                    "': expected one factor for each pair of a "
                                    "global head, 1 first and 1e30 after"));
  }
  return absl::OkStatus();
}

absl::Status GgufConfigReader::ReadPerLayerInputs() {
  return Int("embedding_length_per_layer_input", kWidthMax / count_,
             config_.per_layer_width, /*optional=*/true);
}

absl::Status GgufConfigReader::ReadExperts() {
  RETURN_IF_ERROR(
      Int("expert_count", kExpertsMax, config_.experts, /*optional=*/true));
  if (config_.experts == 0) return absl::OkStatus();
  RETURN_IF_ERROR(
      Int("expert_used_count", config_.experts, config_.experts_used));
  return Int("expert_feed_forward_length", kWidthMax, config_.expert_ff);
}

absl::Status GgufConfigReader::ReadSoftcap() {
  if (!file_.Has(Key("final_logit_softcapping"))) return absl::OkStatus();
  ASSIGN_OR_RETURN(const float cap,
                   file_.GetF32(Key("final_logit_softcapping")));
  if (config_.family == GemmaFamily::kGemma3 && cap != 0) {
    return Unsupported(absl::StrCat(cap),
                       absl::StrCat("gemma3.final_logit_softcapping is ", cap,
                                    ", but Gemma 3 has no soft cap"));
  }
  if (!std::isfinite(cap) || cap < 0) {
    return Corrupt(absl::StrCat(Key("final_logit_softcapping"),
                                ": expected a positive number, found ", cap));
  }
  config_.logit_softcap = cap;
  return absl::OkStatus();
}

absl::Status GgufConfigReader::ReadTokenIds() {
  const std::pair<const char*, int32_t*> ids[] = {
      {"tokenizer.ggml.bos_token_id", &config_.bos_token_id},
      {"tokenizer.ggml.eos_token_id", &config_.eos_token_id},
      {"tokenizer.ggml.padding_token_id", &config_.pad_token_id},
  };
  for (const auto& [key, id] : ids) {
    if (!file_.Has(key)) continue;
    ASSIGN_OR_RETURN(const int64_t value, file_.GetU32(key));
    if (value >= config_.vocab_size) {
      return Corrupt(absl::StrCat(key, ": expected a token below ",
                                  config_.vocab_size, ", found ", value));
    }
    *id = static_cast<int32_t>(value);
  }
  return absl::OkStatus();
}

absl::Status GgufConfigReader::CheckTensor(
    const std::string& name, const std::vector<int64_t>& dims) const {
  const GgufFile::Tensor* tensor = file_.Find(name);
  if (tensor == nullptr) {
    return Corrupt(absl::StrCat("tensor '", name, "' is missing"));
  }
  if (tensor->dims != dims) {
    return Corrupt(absl::StrCat("tensor '", name, "': expected dimensions ",
                                absl::StrJoin(dims, " x "), ", found ",
                                absl::StrJoin(tensor->dims, " x ")));
  }
  return absl::OkStatus();
}

absl::Status GgufConfigReader::CheckTensors() const {
  for (const TableSpec& table : GemmaTables(config_)) {
    RETURN_IF_ERROR(CheckTensor(table.gguf_name, {table.cols, table.rows}));
  }
  for (const LinearSpec& linear : GemmaLinears(config_)) {
    RETURN_IF_ERROR(CheckTensor(linear.gguf_name, linear.GgufDims()));
  }
  for (const NormSpec& norm : GemmaNorms(config_)) {
    RETURN_IF_ERROR(CheckTensor(norm.gguf_name, norm.GgufDims()));
  }
  return absl::OkStatus();
}

absl::StatusOr<GemmaConfig> GgufConfigReader::Read() {
  RETURN_IF_ERROR(ReadFamily());
  RETURN_IF_ERROR(ReadShape());
  RETURN_IF_ERROR(ReadLayers());
  RETURN_IF_ERROR(ReadRope());
  RETURN_IF_ERROR(ReadSoftcap());
  if (config_.family == GemmaFamily::kGemma4) {
    RETURN_IF_ERROR(ReadPerLayerInputs());
    RETURN_IF_ERROR(ReadExperts());
  }
  RETURN_IF_ERROR(ReadTokenIds());
  config_.tied_head = file_.Find(kGgufHead) == nullptr;
  RETURN_IF_ERROR(CheckTensors());
  return std::move(config_);
}

}  // namespace

absl::StatusOr<GemmaConfig> ConfigFromGguf(const GgufFile& file) {
  return GgufConfigReader(file).Read();
}

}  // namespace onegrid::model
