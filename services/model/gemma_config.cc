#include "services/model/gemma_config.h"

#include <cmath>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"
#include "services/model/tensor_names.h"

namespace onegrid::model {
namespace {

constexpr char kArchitecture[] = "gemma3";
// The block count by which llama.cpp, too, tells the 27B from the others.
constexpr int64_t kLayers27B = 62;

// Bounds on what a file may declare; all published sizes are far inside.
constexpr int64_t kWidthMax = 1 << 20;
constexpr int64_t kLayersMax = 1024;

absl::Status Unsupported(const GgufFile& file, const std::string& found,
                         const std::string& message) {
  return common::MakeError(
      absl::StatusCode::kUnimplemented, "UNSUPPORTED_ARCHITECTURE",
      absl::StrCat(file.path(), ": ", message),
      {{"path", file.path()}, {"found", found}, {"supported", kArchitecture}});
}

// Some converters write one number per layer where others write one number;
// Gemma 3 has the same in each layer.
absl::StatusOr<int64_t> ScalarOrUniformArray(const GgufFile& file,
                                             const std::string& key) {
  const auto it = file.metadata().find(key);
  if (it == file.metadata().end()) return file.GetU32(key).status();
  std::vector<int64_t> values;
  if (const auto* u = std::get_if<std::vector<uint32_t>>(&it->second)) {
    values.assign(u->begin(), u->end());
  } else if (const auto* i = std::get_if<std::vector<int32_t>>(&it->second)) {
    values.assign(i->begin(), i->end());
  } else {
    ASSIGN_OR_RETURN(const uint32_t value, file.GetU32(key));
    return value;
  }
  for (const int64_t value : values) {
    if (value != values[0]) {
      return Unsupported(
          file, absl::StrJoin(values, ","),
          absl::StrCat("metadata key '", key,
                       "' differs between layers, which Gemma 3 has not"));
    }
  }
  if (values.empty()) {
    return CorruptFile(file.path(),
                       absl::StrCat("metadata key '", key, "' is empty"));
  }
  return values[0];
}

absl::Status CheckRange(const GgufFile& file, const std::string& name,
                        int64_t value, int64_t max) {
  if (value >= 1 && value <= max) return absl::OkStatus();
  return CorruptFile(file.path(), absl::StrCat(name, ": expected 1 to ", max,
                                               ", found ", value));
}

absl::Status CheckRealNumber(const GgufFile& file, const std::string& name,
                             double value) {
  if (std::isfinite(value) && value > 0) return absl::OkStatus();
  return CorruptFile(file.path(), absl::StrCat(name, ": expected a positive ",
                                               "number, found ", value));
}

absl::Status CheckConfig(const GgufFile& file, const GemmaConfig& c) {
  const std::pair<const char*, int64_t> widths[] = {
      {"embedding_length", c.hidden},
      {"feed_forward_length", c.ff},
      {"attention.head_count", c.heads},
      {"attention.head_count_kv", c.kv_heads},
      {"attention.key_length", c.head_dim},
      {"attention.sliding_window_pattern", c.sliding_window_pattern},
  };
  for (const auto& [name, value] : widths) {
    RETURN_IF_ERROR(
        CheckRange(file, absl::StrCat("gemma3.", name), value, kWidthMax));
  }
  RETURN_IF_ERROR(CheckRange(file, "gemma3.block_count", c.layers, kLayersMax));
  RETURN_IF_ERROR(CheckRange(file, "gemma3.attention.sliding_window",
                             c.sliding_window, int64_t{1} << 32));
  RETURN_IF_ERROR(CheckRange(file, "gemma3.context_length", c.context_length,
                             int64_t{1} << 32));
  RETURN_IF_ERROR(CheckRealNumber(
      file, "gemma3.attention.layer_norm_rms_epsilon", c.rms_eps));
  RETURN_IF_ERROR(
      CheckRealNumber(file, "gemma3.rope.freq_base", c.rope_theta_global));
  RETURN_IF_ERROR(
      CheckRealNumber(file, "gemma3.rope.freq_base_swa", c.rope_theta_local));
  RETURN_IF_ERROR(CheckRealNumber(file, "gemma3.rope.scaling.factor",
                                  c.rope_scaling_factor));
  if (c.heads % c.kv_heads != 0) {
    return CorruptFile(file.path(),
                       absl::StrCat("gemma3.attention.head_count (", c.heads,
                                    ") is not a multiple of head_count_kv (",
                                    c.kv_heads, ")"));
  }
  if (c.head_dim % 2 != 0) {
    return CorruptFile(file.path(),
                       absl::StrCat("gemma3.attention.key_length: expected an "
                                    "even number, found ",
                                    c.head_dim));
  }
  return absl::OkStatus();
}

absl::Status ReadRope(const GgufFile& file, GemmaConfig* config) {
  ASSIGN_OR_RETURN(config->rope_theta_global,
                   file.GetF32("gemma3.rope.freq_base"));
  if (file.Has("gemma3.rope.freq_base_swa")) {
    ASSIGN_OR_RETURN(config->rope_theta_local,
                     file.GetF32("gemma3.rope.freq_base_swa"));
  }
  if (!file.Has("gemma3.rope.scaling.type")) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string type,
                   file.GetString("gemma3.rope.scaling.type"));
  if (type == "none") return absl::OkStatus();
  if (type != "linear") {
    return Unsupported(file, type,
                       absl::StrCat("gemma3.rope.scaling.type: expected "
                                    "'linear' or 'none', found '",
                                    type, "'"));
  }
  ASSIGN_OR_RETURN(config->rope_scaling_factor,
                   file.GetF32("gemma3.rope.scaling.factor"));
  return absl::OkStatus();
}

absl::Status ReadAttention(const GgufFile& file, GemmaConfig* config) {
  ASSIGN_OR_RETURN(config->heads,
                   ScalarOrUniformArray(file, "gemma3.attention.head_count"));
  ASSIGN_OR_RETURN(
      config->kv_heads,
      ScalarOrUniformArray(file, "gemma3.attention.head_count_kv"));
  ASSIGN_OR_RETURN(config->head_dim,
                   file.GetU32("gemma3.attention.key_length"));
  ASSIGN_OR_RETURN(const int64_t value_length,
                   file.GetU32("gemma3.attention.value_length"));
  if (value_length != config->head_dim) {
    return Unsupported(
        file, absl::StrCat(value_length),
        absl::StrCat("gemma3.attention.value_length (", value_length,
                     ") differs from key_length (", config->head_dim, ")"));
  }
  ASSIGN_OR_RETURN(config->sliding_window,
                   file.GetU32("gemma3.attention.sliding_window"));
  if (file.Has("gemma3.attention.sliding_window_pattern")) {
    ASSIGN_OR_RETURN(config->sliding_window_pattern,
                     file.GetU32("gemma3.attention.sliding_window_pattern"));
  }
  if (file.Has("gemma3.final_logit_softcapping")) {
    ASSIGN_OR_RETURN(const float cap,
                     file.GetF32("gemma3.final_logit_softcapping"));
    if (cap != 0) {
      return Unsupported(file, absl::StrCat(cap),
                         absl::StrCat("gemma3.final_logit_softcapping is ", cap,
                                      ", but Gemma 3 has no soft cap"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadTokenIds(const GgufFile& file, GemmaConfig* config) {
  const std::pair<const char*, int32_t*> ids[] = {
      {"tokenizer.ggml.bos_token_id", &config->bos_token_id},
      {"tokenizer.ggml.eos_token_id", &config->eos_token_id},
      {"tokenizer.ggml.padding_token_id", &config->pad_token_id},
  };
  for (const auto& [key, id] : ids) {
    if (!file.Has(key)) continue;
    ASSIGN_OR_RETURN(const int64_t value, file.GetU32(key));
    if (value >= config->vocab_size) {
      return CorruptFile(file.path(),
                         absl::StrCat(key, ": expected a token below ",
                                      config->vocab_size, ", found ", value));
    }
    *id = static_cast<int32_t>(value);
  }
  return absl::OkStatus();
}

absl::Status CheckTensor(const GgufFile& file, const std::string& name,
                         const std::vector<int64_t>& dims) {
  const GgufFile::Tensor* tensor = file.Find(name);
  if (tensor == nullptr) {
    return CorruptFile(file.path(),
                       absl::StrCat("tensor '", name, "' is missing"));
  }
  if (tensor->dims != dims) {
    return CorruptFile(file.path(),
                       absl::StrCat("tensor '", name, "': expected dimensions ",
                                    absl::StrJoin(dims, " x "), ", found ",
                                    absl::StrJoin(tensor->dims, " x ")));
  }
  return absl::OkStatus();
}

absl::Status CheckTensors(const GgufFile& file, const GemmaConfig& config) {
  for (const LinearSpec& linear : GemmaLinears(config)) {
    RETURN_IF_ERROR(
        CheckTensor(file, linear.gguf_name, {linear.in, linear.out}));
  }
  for (const NormSpec& norm : GemmaNorms(config)) {
    RETURN_IF_ERROR(CheckTensor(file, norm.gguf_name, {norm.size}));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GemmaConfig> ConfigFromGguf(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string architecture,
                   file.GetString("general.architecture"));
  if (architecture != kArchitecture) {
    return Unsupported(
        file, architecture,
        absl::StrCat("unsupported architecture: found '", architecture,
                     "', supported: '", kArchitecture, "' (Gemma 3 text)"));
  }
  GemmaConfig config;
  ASSIGN_OR_RETURN(config.hidden, file.GetU32("gemma3.embedding_length"));
  ASSIGN_OR_RETURN(config.layers, file.GetU32("gemma3.block_count"));
  ASSIGN_OR_RETURN(config.context_length, file.GetU32("gemma3.context_length"));
  ASSIGN_OR_RETURN(config.ff,
                   ScalarOrUniformArray(file, "gemma3.feed_forward_length"));
  ASSIGN_OR_RETURN(config.rms_eps,
                   file.GetF32("gemma3.attention.layer_norm_rms_epsilon"));
  RETURN_IF_ERROR(ReadAttention(file, &config));
  RETURN_IF_ERROR(ReadRope(file, &config));
  RETURN_IF_ERROR(CheckConfig(file, config));

  const GgufFile::Tensor* embedding = file.Find(kGgufEmbedding);
  if (embedding == nullptr) {
    return CorruptFile(
        file.path(), absl::StrCat("tensor '", kGgufEmbedding, "' is missing"));
  }
  config.vocab_size = embedding->rows();
  RETURN_IF_ERROR(
      CheckTensor(file, kGgufEmbedding, {config.hidden, config.vocab_size}));
  RETURN_IF_ERROR(CheckRange(file, "vocabulary (rows of token_embd.weight)",
                             config.vocab_size, int64_t{1} << 24));
  RETURN_IF_ERROR(ReadTokenIds(file, &config));
  RETURN_IF_ERROR(CheckTensors(file, config));

  const double scale_width =
      config.layers == kLayers27B
          ? static_cast<double>(config.hidden) / config.heads
          : static_cast<double>(config.head_dim);
  config.attention_scale = 1.0 / std::sqrt(scale_width);
  return config;
}

}  // namespace onegrid::model
