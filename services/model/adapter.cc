#include "services/model/adapter.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "kernels/quant/dequantize.h"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"
#include "services/model/peft_config.h"
#include "services/model/safetensors_folder.h"

namespace onegrid::model {
namespace {

absl::Status Refuse(const char* reason, const std::string& path,
                    absl::string_view item, absl::string_view what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument, reason,
                           absl::StrCat(path, ": ", item, " ", what),
                           {{"path", path}, {"item", std::string(item)}});
}

absl::Status Unsupported(const std::string& path, absl::string_view tensor,
                         absl::string_view what) {
  return Refuse("UNSUPPORTED_ADAPTER", path,
                absl::StrCat("tensor '", tensor, "'"), what);
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

float EffectiveAlpha(const AdapterPair& pair) {
  return static_cast<float>(pair.scale * static_cast<double>(pair.rank));
}

// A matrix as it lies in a file.
struct Stored {
  std::string name;  // Empty: there is none.
  quant::GgmlType type = quant::GgmlType::kF32;
  std::vector<int64_t> shape;  // Row-major.
  absl::Span<const uint8_t> data;
};

// What the file has of one linear.
struct StoredPair {
  std::string module;  // As the file names it.
  Stored a;
  Stored b;
};

// What a tensor that is neither A nor B of a linear is.
const char* WhatElse(absl::string_view name) {
  if (absl::StrContains(name, "lora_magnitude_vector")) {
    return "is DoRA's, which is not supported";
  }
  if (absl::StrContains(name, "lora_embedding")) {
    return "is an embedding's: only linears can be adapted";
  }
  return "is not the A or B of a linear's LoRA";
}

}  // namespace

// One call of Open.
class AdapterReader {
 public:
  AdapterReader(const std::string& path, const std::vector<LinearSpec>& linears)
      : path_(path), linears_(linears), adapter_(new Adapter) {}

  absl::StatusOr<std::unique_ptr<Adapter>> Peft(const std::string& config_path);
  absl::StatusOr<std::unique_ptr<Adapter>> Gguf(
      const std::string& architecture);

 private:
  // Puts a tensor into stored_ under its linear's name there, `module` in the
  // file. UNSUPPORTED_ADAPTER, CORRUPT_FILE.
  absl::Status Store(const std::string& linear, const std::string& module,
                     bool is_b, Stored stored);
  absl::Status StorePeft(const std::string& name);
  absl::Status CheckGgufKeys(const std::string& architecture);
  absl::Status StoreGguf(const GgufFile::Tensor& tensor);
  // Pairs all that was stored: linears' names are `name_of` their specs.
  // `complete` sets rank, alpha and scale of a pair whose shapes fit.
  template <typename NameOf, typename Complete>
  absl::StatusOr<std::unique_ptr<Adapter>> Pair(const NameOf& name_of,
                                                const Complete& complete);
  absl::Status CheckShapes(const LinearSpec& spec, const StoredPair& stored);
  absl::StatusOr<absl::Span<const uint8_t>> Floats(const Stored& stored);

  const std::string& path_;
  const std::vector<LinearSpec>& linears_;
  std::unique_ptr<Adapter> adapter_;
  std::map<std::string, StoredPair> stored_;
};

absl::Status AdapterReader::Store(const std::string& linear,
                                  const std::string& module, bool is_b,
                                  Stored stored) {
  StoredPair& pair = stored_[linear];
  Stored& half = is_b ? pair.b : pair.a;
  if (!half.name.empty()) {
    return CorruptFile(
        path_, absl::StrCat("tensors '", half.name, "' and '", stored.name,
                            "' are of the same linear"));
  }
  pair.module = module;
  half = std::move(stored);
  return absl::OkStatus();
}

absl::Status AdapterReader::StorePeft(const std::string& name) {
  absl::string_view module = name;
  const bool is_a = absl::ConsumeSuffix(&module, ".lora_A.weight");
  const bool is_b = !is_a && absl::ConsumeSuffix(&module, ".lora_B.weight");
  if (!absl::ConsumePrefix(&module, "base_model.model.") || (!is_a && !is_b)) {
    return Unsupported(path_, name, WhatElse(name));
  }
  const SafetensorsFile::Tensor& tensor = *adapter_->safetensors_->Find(name);
  const auto type = FloatType(tensor.dtype);
  if (!type.has_value()) {
    return Unsupported(
        path_, name,
        absl::StrCat("is ", tensor.dtype, ", expected F32, F16 or BF16"));
  }
  // The prefixes of names end in dots, that of the head, too.
  const std::string full = absl::StrCat(module, ".");
  std::string linear = TextModelName(full).value_or(full);
  linear.pop_back();
  return Store(linear, std::string(module), is_b,
               {name, *type, tensor.shape, tensor.data});
}

absl::Status AdapterReader::CheckGgufKeys(const std::string& architecture) {
  const GgufFile& file = *adapter_->gguf_;
  const std::pair<const char*, std::string> expected[] = {
      {"general.type", "adapter"},
      {"adapter.type", "lora"},
      {"general.architecture", architecture}};
  for (const auto& [key, value] : expected) {
    const auto found = file.GetString(key);
    if (!found.ok()) {
      return CorruptFile(path_, absl::StrCat("is not a LoRA adapter: ", key,
                                             " is missing or not a string"));
    }
    if (*found == value) continue;
    return Refuse(
        value == architecture ? "ADAPTER_MISMATCH" : "UNSUPPORTED_ADAPTER",
        path_, key,
        absl::StrCat("is \"", *found, "\", expected \"", value, "\""));
  }
  if (file.Has("adapter.alora.invocation_tokens")) {
    return Refuse("UNSUPPORTED_ADAPTER", path_,
                  "adapter.alora.invocation_tokens", "is not supported");
  }
  return absl::OkStatus();
}

absl::Status AdapterReader::StoreGguf(const GgufFile::Tensor& tensor) {
  absl::string_view name = tensor.name;
  const bool is_a = absl::ConsumeSuffix(&name, ".lora_a");
  const bool is_b = !is_a && absl::ConsumeSuffix(&name, ".lora_b");
  if (!is_a && !is_b) {
    return Unsupported(path_, tensor.name, WhatElse(tensor.name));
  }
  std::vector<int64_t> shape(tensor.dims.rbegin(), tensor.dims.rend());
  // ggml's writer leaves trailing dimensions of 1 out: A of rank 1.
  if (shape.size() == 1) shape.insert(shape.begin(), 1);
  return Store(std::string(name), std::string(name), is_b,
               {tensor.name, tensor.type, std::move(shape), tensor.data});
}

absl::Status AdapterReader::CheckShapes(const LinearSpec& spec,
                                        const StoredPair& stored) {
  const Stored& a = stored.a;
  const Stored& b = stored.b;
  for (const Stored* half : {&a, &b}) {
    if (half->name.empty()) {
      return CorruptFile(path_,
                         absl::StrCat("the ", half == &a ? "A" : "B", " of ",
                                      stored.module, " is missing"));
    }
  }
  if (spec.experts > 1) {
    return Unsupported(path_, a.name, "is of experts, which cannot be adapted");
  }
  if (a.shape.size() != 2 || a.shape[1] != spec.in) {
    return Refuse("ADAPTER_MISMATCH", path_,
                  absl::StrCat("tensor '", a.name, "'"),
                  absl::StrCat("is ", ShapeText(a.shape), ", expected [rank, ",
                               spec.in, "]"));
  }
  if (b.shape.size() != 2 || b.shape[0] != spec.out) {
    return Refuse("ADAPTER_MISMATCH", path_,
                  absl::StrCat("tensor '", b.name, "'"),
                  absl::StrCat("is ", ShapeText(b.shape), ", expected [",
                               spec.out, ", rank]"));
  }
  if (a.shape[0] < 1 || a.shape[0] != b.shape[1]) {
    return CorruptFile(
        path_, absl::StrCat("tensors '", a.name, "' ", ShapeText(a.shape),
                            " and '", b.name, "' ", ShapeText(b.shape),
                            " have no rank in common"));
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const uint8_t>> AdapterReader::Floats(
    const Stored& stored) {
  absl::Span<const uint8_t> bytes = stored.data;
  if (stored.type != quant::GgmlType::kF32) {
    std::vector<float> values(
        static_cast<size_t>(stored.shape[0] * stored.shape[1]));
    RETURN_IF_ERROR(
        quant::Dequantize(stored.type, stored.data, absl::MakeSpan(values)));
    std::vector<uint8_t>& decoded =
        adapter_->decoded_.emplace_back(values.size() * sizeof(float));
    std::memcpy(decoded.data(), values.data(), decoded.size());
    bytes = decoded;
  }
  for (size_t at = 0; at < bytes.size(); at += sizeof(float)) {
    float value;
    std::memcpy(&value, &bytes[at], sizeof(value));
    if (std::isfinite(value)) continue;
    return CorruptFile(path_,
                       absl::StrCat("tensor '", stored.name, "' has ", value,
                                    " at element ", at / sizeof(float)));
  }
  return bytes;
}

template <typename NameOf, typename Complete>
absl::StatusOr<std::unique_ptr<Adapter>> AdapterReader::Pair(
    const NameOf& name_of, const Complete& complete) {
  if (stored_.empty()) return CorruptFile(path_, "has no tensors");
  for (const LinearSpec& spec : linears_) {
    const auto found = stored_.find(name_of(spec));
    if (found == stored_.end()) continue;
    const StoredPair& stored = found->second;
    RETURN_IF_ERROR(CheckShapes(spec, stored));
    AdapterPair pair;
    pair.spec = spec;
    pair.rank = stored.a.shape[0];
    RETURN_IF_ERROR(complete(stored, &pair));
    const std::string stem = absl::StrCat("base_model.model.", spec.hf_name);
    pair.a_name = absl::StrCat(stem, ".lora_A.weight");
    pair.b_name = absl::StrCat(stem, ".lora_B.weight");
    ASSIGN_OR_RETURN(pair.a, Floats(stored.a));
    ASSIGN_OR_RETURN(pair.b, Floats(stored.b));
    adapter_->pairs_.push_back(std::move(pair));
    stored_.erase(found);
  }
  if (!stored_.empty()) {
    const StoredPair& left = stored_.begin()->second;
    return Refuse(
        "ADAPTER_MISMATCH", path_,
        absl::StrCat("tensor '",
                     left.a.name.empty() ? left.b.name : left.a.name, "'"),
        absl::StrCat("is of ", left.module,
                     ", which is no linear of the base"));
  }
  adapter_->ChooseGgufAlpha();
  return std::move(adapter_);
}

absl::StatusOr<std::unique_ptr<Adapter>> AdapterReader::Peft(
    const std::string& config_path) {
  ASSIGN_OR_RETURN(const PeftConfig config, PeftConfig::Read(config_path));
  adapter_->config_json_ = config.text();
  adapter_->use_rslora_ = config.use_rslora();
  ASSIGN_OR_RETURN(adapter_->safetensors_, SafetensorsFile::Open(path_));
  for (const std::string& name : adapter_->safetensors_->names()) {
    RETURN_IF_ERROR(StorePeft(name));
  }
  const auto complete = [&](const StoredPair& stored, AdapterPair* pair) {
    const int64_t rank = config.RankOf(stored.module);
    if (rank != pair->rank) {
      return CorruptFile(
          path_, absl::StrCat("tensor '", stored.a.name, "' has rank ",
                              pair->rank, ", ", config_path, " says ", rank));
    }
    pair->alpha = config.AlphaOf(stored.module);
    const auto r = static_cast<double>(rank);
    pair->scale = pair->alpha / (config.use_rslora() ? std::sqrt(r) : r);
    return absl::OkStatus();
  };
  return Pair([](const LinearSpec& spec) { return spec.hf_name; }, complete);
}

absl::StatusOr<std::unique_ptr<Adapter>> AdapterReader::Gguf(
    const std::string& architecture) {
  ASSIGN_OR_RETURN(adapter_->gguf_, GgufFile::Open(path_));
  RETURN_IF_ERROR(CheckGgufKeys(architecture));
  double alpha = 0;
  constexpr char kAlpha[] = "adapter.lora.alpha";
  if (adapter_->gguf_->Has(kAlpha)) {
    const auto found = adapter_->gguf_->GetF32(kAlpha);
    // Of one sign and size with PEFT's, see PeftConfig.
    if (!found.ok() ||
        !(*found == 0 || (*found >= 1e-20f && *found <= 1e20f))) {
      return CorruptFile(
          path_,
          absl::StrCat(kAlpha, " is not 0 or an f32 from 1e-20 to 1e20"));
    }
    alpha = *found;
  }
  for (const GgufFile::Tensor& tensor : adapter_->gguf_->tensors()) {
    RETURN_IF_ERROR(StoreGguf(tensor));
  }
  const auto complete = [&](const StoredPair&, AdapterPair* pair) {
    const auto rank = static_cast<double>(pair->rank);
    pair->alpha = alpha == 0 ? rank : alpha;
    pair->scale = pair->alpha / rank;
    return absl::OkStatus();
  };
  return Pair([](const LinearSpec& spec) { return spec.gguf_name; }, complete);
}

absl::StatusOr<std::unique_ptr<Adapter>> Adapter::Open(
    const common::AdapterFiles& files, const std::string& architecture,
    const std::vector<LinearSpec>& linears) {
  return files.config.empty() ? OpenGguf(files.tensors, architecture, linears)
                              : OpenPeft(files.tensors, files.config, linears);
}

absl::StatusOr<std::unique_ptr<Adapter>> Adapter::OpenPeft(
    const std::string& path, const std::string& config_path,
    const std::vector<LinearSpec>& linears) {
  return AdapterReader(path, linears).Peft(config_path);
}

absl::StatusOr<std::unique_ptr<Adapter>> Adapter::OpenGguf(
    const std::string& path, const std::string& architecture,
    const std::vector<LinearSpec>& linears) {
  return AdapterReader(path, linears).Gguf(architecture);
}

void Adapter::ChooseGgufAlpha() {
  std::map<float, int64_t> votes;
  int64_t most = 0;
  for (const AdapterPair& pair : pairs_) {
    most = std::max(most, ++votes[EffectiveAlpha(pair)]);
  }
  for (const auto& [alpha, count] : votes) {
    if (count == most) gguf_alpha_ = alpha;
  }
}

std::vector<uint8_t> Adapter::GgufB(const AdapterPair& pair) const {
  std::vector<uint8_t> bytes(pair.b.begin(), pair.b.end());
  if (EffectiveAlpha(pair) == gguf_alpha_) return bytes;
  const double factor = pair.scale * static_cast<double>(pair.rank) /
                        static_cast<double>(gguf_alpha_);
  for (size_t at = 0; at < bytes.size(); at += sizeof(float)) {
    float value;
    std::memcpy(&value, &bytes[at], sizeof(value));
    value = static_cast<float>(factor * static_cast<double>(value));
    std::memcpy(&bytes[at], &value, sizeof(value));
  }
  return bytes;
}

}  // namespace onegrid::model
