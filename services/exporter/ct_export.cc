#include "services/exporter/ct_export.h"

#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "kernels/quant/ct_pack.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/hf_tokenizer.h"
#include "services/model/safetensors.h"
#include "services/model/sentencepiece_model.h"
#include "services/model/tensor_ops.h"

namespace onegrid::exporter {
namespace {

using model::LinearSpec;
using model::SafetensorsWriter;

template <typename T>
std::vector<uint8_t> BytesOf(const std::vector<T>& values) {
  std::vector<uint8_t> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// A regular expression for each kind of linear ("mlp.up_proj") that says in
// which layers it is on `grid`.
std::vector<std::string> Targets(const GridModel& model,
                                 const quant::Grid& grid) {
  std::map<std::string, std::vector<int>> layers;  // by kind
  std::vector<std::string> targets;
  for (const LinearSpec& spec : model.linears()) {
    if (&model.GridOf(spec) != &grid || !IsPackedInCt(spec)) continue;
    const std::string prefix = absl::StrCat("model.layers.", spec.layer, ".");
    layers[spec.hf_name.substr(prefix.size())].push_back(spec.layer);
  }
  for (const auto& [kind, numbers] : layers) {
    targets.push_back(absl::StrCat(
        R"(re:.*\.layers\.()", absl::StrJoin(numbers, "|"), R"()\.)",
        absl::StrReplaceAll(kind, {{".", R"(\.)"}}), "$"));
  }
  return targets;
}

nlohmann::ordered_json ConfigGroup(const quant::Grid& grid,
                                   const std::vector<std::string>& targets) {
  const nlohmann::ordered_json weights = {{"num_bits", quant::CodeBits(grid)},
                                          {"type", "int"},
                                          {"symmetric", true},
                                          {"strategy", "group"},
                                          {"group_size", grid.group},
                                          {"dynamic", false}};
  return {{"targets", targets},
          {"input_activations", nullptr},
          {"output_activations", nullptr},
          {"format", "pack-quantized"},
          {"weights", weights}};
}

// Modules of class Linear that are not packed.
std::vector<std::string> Ignored(const GridModel& model) {
  std::vector<std::string> names = {"lm_head"};
  for (const LinearSpec& spec : model.linears()) {
    if (spec.experts > 1 || IsPackedInCt(spec)) continue;
    if (spec.gguf_name != model::kGgufHead) names.push_back(spec.hf_name);
  }
  for (const GridNorm& norm : model.norms()) {
    if (norm.spec.rows == 0) continue;  // Matrices are routers.
    names.emplace_back(absl::StripSuffix(norm.spec.hf_name, ".weight"));
  }
  return names;
}

std::string QuantizationConfig(const GridModel& model) {
  std::vector<std::pair<const quant::Grid*, std::vector<std::string>>> used;
  // The most bits first: see the header.
  for (const quant::Grid* grid :
       {&quant::kInt8G32, &quant::kInt4G32, &quant::kInt2G64}) {
    std::vector<std::string> targets = Targets(model, *grid);
    if (!targets.empty()) used.emplace_back(grid, std::move(targets));
  }
  if (used.size() == 1) used[0].second = {"Linear"};
  nlohmann::ordered_json groups;
  for (const auto& [grid, targets] : used) {
    groups[absl::StrCat("group_", groups.size())] = ConfigGroup(*grid, targets);
  }
  const nlohmann::ordered_json config = {{"quant_method", "compressed-tensors"},
                                         {"format", "pack-quantized"},
                                         {"quantization_status", "compressed"},
                                         {"global_compression_ratio", nullptr},
                                         {"kv_cache_scheme", nullptr},
                                         {"ignore", Ignored(model)},
                                         {"config_groups", groups}};
  return config.dump();
}

absl::StatusOr<std::string> GenerationConfig(const GridModel& grid) {
  const model::GemmaConfig& config = grid.config();
  ASSIGN_OR_RETURN(const auto vocabulary,
                   model::VocabularyFromGguf(grid.base()));
  nlohmann::ordered_json json = {{"bos_token_id", config.bos_token_id},
                                 {"eos_token_id", config.eos_token_id},
                                 {"pad_token_id", config.pad_token_id},
                                 {"do_sample", false}};
  if (config.family == model::GemmaFamily::kGemma4) {
    // Whichever the file names, all that end an answer.
    std::set<int32_t> ends = {config.eos_token_id};
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      for (const char* name : {"<eos>", "<turn|>", "<|tool_response>"}) {
        if (vocabulary.tokens[id].text == name) {
          ends.insert(static_cast<int32_t>(id));
        }
      }
    }
    json["eos_token_id"] = ends;
  }
  if (!vocabulary.suppressed.empty()) {
    json["suppress_tokens"] = vocabulary.suppressed;
  }
  return json.dump(2) + "\n";
}

// The linear that is being written. Its tensors follow each other, and are made
// of one decoded matrix.
class CurrentLinear {
 public:
  explicit CurrentLinear(const GridModel& model) : model_(model) {}

  absl::StatusOr<const quant::GridMatrix*> Get(const LinearSpec& spec) {
    if (spec_ != &spec) {
      spec_ = nullptr;
      ASSIGN_OR_RETURN(matrix_, model_.Linear(spec));
      spec_ = &spec;
    }
    return &matrix_;
  }

 private:
  const GridModel& model_;
  const LinearSpec* spec_ = nullptr;
  quant::GridMatrix matrix_;
};

// Adds the three tensors of a packed linear; `written` is called after the
// first. The spec must stay where it is.
absl::Status AddLinear(const quant::Grid& grid, const LinearSpec& spec,
                       CurrentLinear& current,
                       const std::function<absl::Status()>& written,
                       SafetensorsWriter& writer) {
  using Sink = SafetensorsWriter::Sink;
  const int64_t row_words = (spec.in * quant::CodeBits(grid) + 31) / 32;
  RETURN_IF_ERROR(writer.AddProduced(
      absl::StrCat(spec.hf_name, ".weight_packed"), "I32",
      {spec.out, row_words}, [&, written](const Sink& sink) -> absl::Status {
        ASSIGN_OR_RETURN(const quant::GridMatrix* matrix, current.Get(spec));
        ASSIGN_OR_RETURN(
            const std::vector<int32_t> words,
            quant::PackCt(matrix->codes, matrix->rows, matrix->cols,
                          quant::CodeBits(*matrix->grid)));
        RETURN_IF_ERROR(sink(BytesOf(words)));
        return written();
      }));
  RETURN_IF_ERROR(writer.AddProduced(
      absl::StrCat(spec.hf_name, ".weight_scale"), "F32",
      {spec.out, spec.in / grid.group}, [&](const Sink& sink) -> absl::Status {
        ASSIGN_OR_RETURN(const quant::GridMatrix* matrix, current.Get(spec));
        return sink(BytesOf(matrix->scales));
      }));
  const std::vector<int64_t> shape = {spec.out, spec.in};
  return writer.Add(absl::StrCat(spec.hf_name, ".weight_shape"), "I64", {2},
                    BytesOf(shape));
}

// The values of a matrix that is not packed: a table, or see IsPackedInCt.
// `written` may be null.
absl::Status AddValues(const GridModel& grid, const std::string& gguf_name,
                       const std::string& name,
                       const std::vector<int64_t>& shape,
                       const std::function<absl::Status()>& written,
                       SafetensorsWriter& writer) {
  return writer.AddProduced(
      name, "F32", shape,
      [&grid, gguf_name,
       written](const SafetensorsWriter::Sink& sink) -> absl::Status {
        ASSIGN_OR_RETURN(const quant::GridMatrix matrix,
                         grid.MatrixByName(gguf_name));
        for (const auto [begin, end] :
             model::RowParts(matrix.rows, matrix.cols)) {
          RETURN_IF_ERROR(sink(BytesOf(DequantizeRows(matrix, begin, end))));
        }
        return written ? written() : absl::OkStatus();
      });
}

absl::StatusOr<std::vector<std::string>> WriteWeights(
    const GridModel& grid, const std::string& folder, int64_t max_shard_bytes,
    const ProgressFn& progress) {
  SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  CurrentLinear current(grid);
  int64_t done = 0;
  const auto written = [&]() -> absl::Status {
    if (!progress) return absl::OkStatus();
    return progress("compressed-tensors", ++done, grid.linears().size());
  };
  for (const LinearSpec& spec : grid.linears()) {
    if (IsPackedInCt(spec)) {
      RETURN_IF_ERROR(
          AddLinear(grid.GridOf(spec), spec, current, written, writer));
    } else {
      RETURN_IF_ERROR(AddValues(grid, spec.gguf_name, spec.HfWeightName(),
                                spec.HfShape(), written, writer));
    }
  }
  for (const GridNorm& norm : grid.norms()) {
    if (norm.spec.hf_name.empty()) continue;
    std::vector<float> values = norm.Values();
    for (float& value : values) value -= norm.spec.gguf_offset;
    RETURN_IF_ERROR(writer.Add(norm.spec.hf_name, "F32", norm.spec.HfShape(),
                               BytesOf(values)));
  }
  for (const model::TableSpec& spec : grid.tables()) {
    RETURN_IF_ERROR(AddValues(grid, spec.gguf_name, spec.hf_name,
                              {spec.rows, spec.cols}, nullptr, writer));
  }
  return writer.WriteShards(folder, "model", max_shard_bytes);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> WriteCompressedTensors(
    const GridModel& grid, const std::string& folder, int64_t max_shard_bytes,
    const ProgressFn& progress) {
  ASSIGN_OR_RETURN(std::vector<std::string> files,
                   WriteWeights(grid, folder, max_shard_bytes, progress));
  ASSIGN_OR_RETURN(
      const std::string config,
      model::HfConfigJson(grid.config(), "float32", QuantizationConfig(grid)));
  RETURN_IF_ERROR(
      common::WriteFileAtomic(absl::StrCat(folder, "/config.json"), config));
  ASSIGN_OR_RETURN(const std::string generation, GenerationConfig(grid));
  RETURN_IF_ERROR(common::WriteFileAtomic(
      absl::StrCat(folder, "/generation_config.json"), generation));
  files.insert(files.end(), {"config.json", "generation_config.json"});
  ASSIGN_OR_RETURN(const auto tokenizer_files,
                   model::HfTokenizerFiles(grid.base()));
  for (const auto& [name, contents] : tokenizer_files) {
    RETURN_IF_ERROR(
        common::WriteFileAtomic(absl::StrCat(folder, "/", name), contents));
    files.push_back(name);
  }
  return files;
}

}  // namespace onegrid::exporter
