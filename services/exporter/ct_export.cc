#include "services/exporter/ct_export.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ct_pack.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/hf_tokenizer.h"
#include "services/model/safetensors.h"
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

std::string QuantizationConfig() {
  const nlohmann::ordered_json weights = {{"num_bits", 4},
                                          {"type", "int"},
                                          {"symmetric", true},
                                          {"strategy", "group"},
                                          {"group_size", quant::kGroup},
                                          {"dynamic", false}};
  const nlohmann::ordered_json group = {{"targets", {"Linear"}},
                                        {"input_activations", nullptr},
                                        {"output_activations", nullptr},
                                        {"format", "pack-quantized"},
                                        {"weights", weights}};
  const nlohmann::ordered_json config = {
      {"quant_method", "compressed-tensors"},
      {"format", "pack-quantized"},
      {"quantization_status", "compressed"},
      {"global_compression_ratio", nullptr},
      {"kv_cache_scheme", nullptr},
      {"ignore", {"lm_head"}},
      {"config_groups", {{"group_0", group}}}};
  return config.dump();
}

std::string GenerationConfig(const model::Gemma3Config& config) {
  const nlohmann::ordered_json json = {{"bos_token_id", config.bos_token_id},
                                       {"eos_token_id", config.eos_token_id},
                                       {"pad_token_id", config.pad_token_id},
                                       {"do_sample", false}};
  return json.dump(2) + "\n";
}

absl::Status AddLinear(const quant::GridMatrix& matrix, const LinearSpec& spec,
                       SafetensorsWriter& writer) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> words,
                   quant::PackCt(matrix.codes, matrix.rows, matrix.cols,
                                 quant::CodeBits(*matrix.grid)));
  const std::vector<int64_t> shape = {spec.out, spec.in};
  RETURN_IF_ERROR(writer.Add(absl::StrCat(spec.hf_name, ".weight_packed"),
                             "I32", {spec.out, spec.in / 8}, BytesOf(words)));
  RETURN_IF_ERROR(writer.Add(absl::StrCat(spec.hf_name, ".weight_scale"), "F32",
                             {spec.out, spec.in / quant::kGroup},
                             BytesOf(matrix.scales)));
  return writer.Add(absl::StrCat(spec.hf_name, ".weight_shape"), "I64", {2},
                    BytesOf(shape));
}

absl::Status WriteWeights(const GridModel& grid, const std::string& path,
                          const ProgressFn& progress) {
  SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  int64_t done = 0;
  for (const LinearSpec& spec : grid.linears()) {
    ASSIGN_OR_RETURN(const quant::GridMatrix matrix, grid.Linear(spec));
    RETURN_IF_ERROR(AddLinear(matrix, spec, writer));
    if (progress) {
      RETURN_IF_ERROR(
          progress("compressed-tensors", ++done, grid.linears().size()));
    }
  }
  for (const GridNorm& norm : grid.norms()) {
    ASSIGN_OR_RETURN(std::vector<float> values,
                     model::DequantizeTensor(*norm.tensor));
    for (float& value : values) value -= model::kGgufNormOffset;
    RETURN_IF_ERROR(writer.Add(norm.spec.hf_name, "F32", {norm.spec.size},
                               BytesOf(values)));
  }
  ASSIGN_OR_RETURN(const std::vector<float> embedding,
                   model::DequantizeTensor(grid.embedding()));
  RETURN_IF_ERROR(writer.Add(
      model::kHfEmbedding, "F32",
      {grid.config().vocab_size, grid.config().hidden},
      absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(embedding.data()),
                          embedding.size() * sizeof(float))));
  return writer.WriteTo(path);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> WriteCompressedTensors(
    const GridModel& grid, const std::string& folder,
    const ProgressFn& progress) {
  RETURN_IF_ERROR(
      WriteWeights(grid, absl::StrCat(folder, "/model.safetensors"), progress));
  ASSIGN_OR_RETURN(
      const std::string config,
      model::HfConfigJson(grid.config(), "float32", QuantizationConfig()));
  RETURN_IF_ERROR(
      common::WriteFileAtomic(absl::StrCat(folder, "/config.json"), config));
  RETURN_IF_ERROR(
      common::WriteFileAtomic(absl::StrCat(folder, "/generation_config.json"),
                              GenerationConfig(grid.config())));
  std::vector<std::string> files = {"model.safetensors", "config.json",
                                    "generation_config.json"};
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
