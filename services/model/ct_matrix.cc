#include "services/model/ct_matrix.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/quant/ct_pack.h"
#include "services/common/error_info.h"
#include "services/model/packed_checker.h"

namespace onegrid::model {
namespace {

using Tensor = SafetensorsFile::Tensor;

std::string PackedName(const CtModuleShape& module) {
  return absl::StrCat(module.name, ".weight_packed");
}

std::string ScaleName(const CtModuleShape& module) {
  return absl::StrCat(module.name, ".weight_scale");
}

// Inputs to a scale.
int64_t GroupOf(const CtModuleShape& module) {
  return module.scheme.group == 0 ? module.in : module.scheme.group;
}

template <typename T>
std::vector<int64_t> Integers(const Tensor& tensor) {
  std::vector<T> values(tensor.data.size() / sizeof(T));
  std::memcpy(values.data(), tensor.data.data(), values.size() * sizeof(T));
  return {values.begin(), values.end()};
}

absl::Status CheckShapeTensor(const CtModuleShape& module,
                              const PackedChecker& checker) {
  const std::string name = absl::StrCat(module.name, ".weight_shape");
  ASSIGN_OR_RETURN(const Tensor* tensor, checker.Find(name, {2}));
  const bool wide = tensor->dtype == "I64";
  RETURN_IF_ERROR(
      checker.Type(name, *tensor, wide || tensor->dtype == "I32", "I64"));
  const std::vector<int64_t> found =
      wide ? Integers<int64_t>(*tensor) : Integers<int32_t>(*tensor);
  if (found == std::vector<int64_t>{module.out, module.in}) {
    return absl::OkStatus();
  }
  return checker.Corrupt(
      name, absl::StrCat(": expected ", module.out, ", ", module.in, ", found ",
                         absl::StrJoin(found, ", ")));
}

}  // namespace

absl::Status CheckCtModule(const SafetensorsFolder& weights,
                           const std::string& folder,
                           const CtModuleShape& module,
                           std::set<std::string>* known) {
  const PackedChecker checker(weights, folder, known);
  RETURN_IF_ERROR(checker.None(absl::StrCat(module.name, ".weight_zero_point"),
                               "zero points"));
  RETURN_IF_ERROR(checker.None(absl::StrCat(module.name, ".weight_g_idx"),
                               "groups in another order (actorder)"));
  const std::string packed = PackedName(module);
  const int per_word = 32 / module.scheme.bits;
  ASSIGN_OR_RETURN(
      const Tensor* words,
      checker.Find(packed,
                   {module.out, (module.in + per_word - 1) / per_word}));
  RETURN_IF_ERROR(checker.Type(packed, *words, words->dtype == "I32", "I32"));
  const int64_t group = GroupOf(module);
  if (module.in % group != 0) {
    return checker.Corrupt(packed,
                           absl::StrCat(": rows of ", module.in,
                                        " are not whole groups of ", group));
  }
  const std::string scale = ScaleName(module);
  ASSIGN_OR_RETURN(const Tensor* scales,
                   checker.Find(scale, {module.out, module.in / group}));
  RETURN_IF_ERROR(checker.Type(scale, *scales,
                               FloatType(scales->dtype).has_value(),
                               "BF16, F16 or F32"));
  return CheckShapeTensor(module, checker);
}

PackedShape ShapeOf(const CtModuleShape& module) {
  return {module.out, module.in, module.scheme.bits, GroupOf(module)};
}

absl::StatusOr<PackedMatrix> ReadCtRows(const SafetensorsFolder& weights,
                                        const CtModuleShape& module,
                                        int64_t begin, int64_t end) {
  PackedMatrix matrix{
      end - begin, module.in, module.scheme.bits, GroupOf(module), {},
      {},          begin};
  const Tensor& packed = *weights.Find(PackedName(module));
  const int64_t row_words = packed.shape[1];
  std::vector<int32_t> words(static_cast<size_t>(matrix.rows * row_words));
  std::memcpy(words.data(),
              packed.data.data() + begin * row_words * sizeof(int32_t),
              words.size() * sizeof(int32_t));
  ASSIGN_OR_RETURN(matrix.codes, quant::UnpackCt(words, matrix.rows, module.in,
                                                 module.scheme.bits));
  ASSIGN_OR_RETURN(matrix.scales,
                   ReadScaleRows(weights, ScaleName(module), begin, end));
  return matrix;
}

}  // namespace onegrid::model
