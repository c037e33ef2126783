#include "services/model/ct_matrix.h"

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "kernels/quant/ct_pack.h"
#include "kernels/quant/dequantize.h"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"

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

// Finds and checks the tensors of a folder.
class Checker {
 public:
  Checker(const SafetensorsFolder& weights, const std::string& folder,
          std::set<std::string>* known)
      : weights_(weights), folder_(folder), known_(known) {}

  absl::Status Corrupt(const std::string& tensor,
                       const std::string& what) const {
    return CorruptFile(folder_, absl::StrCat("tensor '", tensor, "'", what));
  }

  absl::StatusOr<const Tensor*> Find(const std::string& name,
                                     const std::vector<int64_t>& shape) const {
    const Tensor* tensor = weights_.Find(name);
    if (tensor == nullptr) {
      return Corrupt(name, " is missing; config.json says that it is packed");
    }
    if (tensor->shape != shape) {
      return Corrupt(
          name,
          absl::StrCat(": expected shape [", absl::StrJoin(shape, ", "),
                       "], found [", absl::StrJoin(tensor->shape, ", "), "]"));
    }
    known_->insert(name);
    return tensor;
  }

  absl::Status Type(const std::string& name, const Tensor& tensor, bool good,
                    absl::string_view expected) const {
    if (good) return absl::OkStatus();
    return Corrupt(name,
                   absl::StrCat(" is ", tensor.dtype, ", expected ", expected));
  }

  // Refuses the module if it has this tensor.
  absl::Status None(const std::string& name, absl::string_view what) const {
    if (weights_.Find(name) == nullptr) return absl::OkStatus();
    return common::MakeError(absl::StatusCode::kUnimplemented,
                             "UNSUPPORTED_QUANTIZATION",
                             absl::StrCat(folder_, ": tensor '", name,
                                          "': ", what, " are not supported"),
                             {{"path", folder_}, {"tensor", name}});
  }

 private:
  const SafetensorsFolder& weights_;
  const std::string& folder_;
  std::set<std::string>* known_;
};

template <typename T>
std::vector<int64_t> Integers(const Tensor& tensor) {
  std::vector<T> values(tensor.data.size() / sizeof(T));
  std::memcpy(values.data(), tensor.data.data(), values.size() * sizeof(T));
  return {values.begin(), values.end()};
}

absl::Status CheckShapeTensor(const CtModuleShape& module, Checker& checker) {
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
  Checker checker(weights, folder, known);
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

absl::StatusOr<CtMatrix> ReadCtMatrix(const SafetensorsFolder& weights,
                                      const CtModuleShape& module) {
  CtMatrix matrix{module.out,      module.in, module.scheme.bits,
                  GroupOf(module), {},        {}};
  const Tensor& packed = *weights.Find(PackedName(module));
  std::vector<int32_t> words(packed.data.size() / sizeof(int32_t));
  std::memcpy(words.data(), packed.data.data(), packed.data.size());
  ASSIGN_OR_RETURN(matrix.codes, quant::UnpackCt(words, module.out, module.in,
                                                 module.scheme.bits));
  const Tensor& scale = *weights.Find(ScaleName(module));
  matrix.scales.resize(
      static_cast<size_t>(module.out * (module.in / matrix.group)));
  RETURN_IF_ERROR(quant::Dequantize(*FloatType(scale.dtype), scale.data,
                                    absl::MakeSpan(matrix.scales)));
  for (size_t i = 0; i < matrix.scales.size(); ++i) {
    if (std::isfinite(matrix.scales[i])) continue;
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "UNSUPPORTED_TENSOR",
        absl::StrCat("tensor ", ScaleName(module),
                     " has a scale that is not finite, at element ", i),
        {{"tensor", ScaleName(module)}});
  }
  return matrix;
}

}  // namespace onegrid::model
