#include "services/model/gemma_quant_matrix.h"

#include <cstring>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "kernels/quant/ct_pack.h"
#include "kernels/quant/dequantize.h"
#include "kernels/quant/grid.h"
#include "services/common/error_info.h"
#include "services/model/packed_checker.h"

namespace onegrid::model {
namespace {

using Tensor = SafetensorsFile::Tensor;

std::string CodesName(const GemmaModuleShape& module) {
  return absl::StrCat(module.name,
                      module.embedding ? ".embedding_quantized" : ".weight");
}

std::string ScaleName(const GemmaModuleShape& module) {
  return absl::StrCat(module.name,
                      module.embedding ? ".embedding_scale" : ".weight_scale");
}

absl::Status FloatsOnly(const PackedChecker& checker, const std::string& name,
                        const Tensor& tensor) {
  return checker.Type(name, tensor, FloatType(tensor.dtype).has_value(),
                      "F32, BF16 or F16");
}

absl::Status CheckScale(const PackedChecker& checker,
                        const GemmaModuleShape& module) {
  const std::string name = ScaleName(module);
  ASSIGN_OR_RETURN(const Tensor* scale, checker.Find(name));
  const std::vector<int64_t>& shape = scale->shape;
  const bool parts = shape.size() == 2 && shape[0] == module.out &&
                     shape[1] > 0 && module.in % shape[1] == 0;
  if (!parts || (!module.embedding && shape[1] != 1)) {
    return checker.Corrupt(
        name, absl::StrCat(": expected shape [", module.out,
                           module.embedding
                               ? absl::StrCat(", a divisor of ", module.in)
                               : ", 1",
                           "], found [", absl::StrJoin(shape, ", "), "]"));
  }
  return FloatsOnly(checker, name, *scale);
}

// A scale of activations that may be there.
absl::Status TakeActivationScale(const SafetensorsFolder& weights,
                                 const PackedChecker& checker,
                                 const std::string& name,
                                 int64_t* static_scales) {
  if (weights.Find(name) == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Tensor* scale, checker.Find(name));
  RETURN_IF_ERROR(FloatsOnly(checker, name, *scale));
  float value = 0;
  const absl::Status read = quant::Dequantize(
      *FloatType(scale->dtype), scale->data, absl::MakeSpan(&value, 1));
  if (!read.ok()) {
    return checker.Corrupt(
        name, absl::StrCat(": expected one element, found [",
                           absl::StrJoin(scale->shape, ", "), "]"));
  }
  if (value != 0) ++*static_scales;
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckGemmaModule(const SafetensorsFolder& weights,
                              const std::string& folder,
                              const GemmaModuleShape& module,
                              std::set<std::string>* known,
                              int64_t* static_scales) {
  const PackedChecker checker(weights, folder, known);
  const std::string codes = CodesName(module);
  if (module.in % quant::kGroup != 0) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "UNSUPPORTED_TENSOR",
        absl::StrCat(folder, ": tensor '", codes, "': rows of ", module.in,
                     " weights are not whole groups of ", quant::kGroup),
        {{"path", folder}, {"tensor", codes}});
  }
  ASSIGN_OR_RETURN(
      const Tensor* packed,
      checker.Find(codes, {module.out, module.in * module.bits / 8}));
  const char* type = module.bits == 8 ? "I8" : "U8";
  RETURN_IF_ERROR(checker.Type(codes, *packed, packed->dtype == type, type));
  RETURN_IF_ERROR(CheckScale(checker, module));
  for (const char* part :
       {".input_activation_scale", ".output_activation_scale"}) {
    RETURN_IF_ERROR(TakeActivationScale(
        weights, checker, absl::StrCat(module.name, part), static_scales));
  }
  return absl::OkStatus();
}

void TakeCacheScales(const SafetensorsFolder& weights,
                     std::set<std::string>* known, int64_t* static_scales) {
  for (const auto& [name, file] : weights.tensors()) {
    for (const char* part :
         {".self_attn.k_cache_scale", ".self_attn.v_cache_scale"}) {
      if (!absl::EndsWith(name, part)) continue;
      known->insert(name);
      ++*static_scales;
    }
  }
}

PackedShape ShapeOf(const SafetensorsFolder& weights,
                    const GemmaModuleShape& module) {
  const int64_t scales = weights.Find(ScaleName(module))->shape[1];
  return {module.out, module.in, module.bits, module.in / scales};
}

absl::StatusOr<PackedMatrix> ReadGemmaRows(const SafetensorsFolder& weights,
                                           const GemmaModuleShape& module,
                                           int64_t begin, int64_t end) {
  PackedMatrix matrix{
      end - begin, module.in, module.bits, ShapeOf(weights, module).group,
      {},          {},        begin};
  const int64_t row_bytes = module.in * module.bits / 8;
  const auto bytes =
      weights.Find(CodesName(module))
          ->data.subspan(begin * row_bytes, matrix.rows * row_bytes);
  if (module.bits == 8) {
    matrix.codes.resize(bytes.size());
    std::memcpy(matrix.codes.data(), bytes.data(), bytes.size());
  } else {
    // Rows are whole words, of which the lowest byte comes first.
    std::vector<int32_t> words(bytes.size() / sizeof(int32_t));
    std::memcpy(words.data(), bytes.data(), bytes.size());
    ASSIGN_OR_RETURN(matrix.codes, quant::UnpackCt(words, matrix.rows,
                                                   module.in, module.bits));
  }
  ASSIGN_OR_RETURN(matrix.scales,
                   ReadScaleRows(weights, ScaleName(module), begin, end));
  return matrix;
}

}  // namespace onegrid::model
