#include "services/exporter/equivalence.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quant/ct_pack.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"
#include "services/model/gguf_reader.h"
#include "services/model/safetensors_folder.h"
#include "services/model/tensor_names.h"
#include "services/model/tensor_ops.h"

namespace onegrid::exporter {
namespace {

using model::GgufFile;
using model::LinearSpec;
using model::SafetensorsFolder;
using quant::GgmlType;
using quant::GridMatrix;

constexpr char kNormReason[] = "w - 1 is not exact in f32";

// Counts one compared tensor; an empty reason means that it is bit-exact.
void Count(v1::EquivalenceReport* report, absl::string_view artifact,
           absl::string_view tensor, absl::string_view reason,
           double max_abs_error) {
  report->set_tensors(report->tensors() + 1);
  if (reason.empty()) {
    report->set_tensors_bit_exact(report->tensors_bit_exact() + 1);
    return;
  }
  v1::TensorDifference* difference = report->add_differing();
  difference->set_artifact(std::string(artifact));
  difference->set_tensor(std::string(tensor));
  difference->set_reason(std::string(reason));
  difference->set_max_abs_error(max_abs_error);
}

constexpr double kUnknownError = std::numeric_limits<double>::infinity();

bool SameBytes(absl::Span<const uint8_t> a, absl::Span<const uint8_t> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

template <typename T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

double MaxError(const GridMatrix& a, const GridMatrix& b) {
  if (a.grid != b.grid || a.codes.size() != b.codes.size() ||
      a.scales.size() != b.scales.size()) {
    return kUnknownError;
  }
  double error = 0;
  for (size_t i = 0; i < a.codes.size(); ++i) {
    const size_t g = i / a.grid->group;
    error = std::max(error, std::fabs(a.codes[i] * double{a.scales[g]} -
                                      b.codes[i] * double{b.scales[g]}));
  }
  return error;
}

void CountMatrix(v1::EquivalenceReport* report, absl::string_view artifact,
                 absl::string_view tensor, const GridMatrix& expected,
                 const absl::StatusOr<GridMatrix>& found) {
  if (!found.ok()) {
    Count(report, artifact, tensor, found.status().message(), kUnknownError);
    return;
  }
  std::string reason;
  if (expected.grid != found->grid) reason = "grids differ";
  if (!SameBits(expected.codes, found->codes)) {
    absl::StrAppend(&reason, reason.empty() ? "" : "; ", "codes differ");
  }
  if (!SameBits(expected.scales, found->scales)) {
    absl::StrAppend(&reason, reason.empty() ? "" : "; ", "scales differ");
  }
  Count(report, artifact, tensor, reason,
        reason.empty() ? 0 : MaxError(expected, *found));
}

absl::StatusOr<GridMatrix> GgufMatrix(const GgufFile& file,
                                      const GgufFile::Tensor& expected,
                                      int64_t rows, int64_t cols) {
  const GgufFile::Tensor* tensor = file.Find(expected.name);
  if (tensor == nullptr) return absl::NotFoundError("missing");
  if (!quant::GridOfBlocks(tensor->type).ok() ||
      tensor->dims != expected.dims) {
    return absl::InvalidArgumentError("wrong type or shape");
  }
  return quant::UnpackBlocks(tensor->type, tensor->data, rows, cols);
}

void CountBytes(v1::EquivalenceReport* report, absl::string_view artifact,
                const GgufFile::Tensor& expected, const GgufFile& file) {
  const GgufFile::Tensor* found = file.Find(expected.name);
  std::string reason;
  if (found == nullptr) {
    reason = "missing";
  } else if (found->type != expected.type || found->dims != expected.dims) {
    reason = "wrong type or shape";
  } else if (!SameBytes(found->data, expected.data)) {
    reason = "bytes differ";
  }
  Count(report, artifact, expected.name, reason, kUnknownError);
}

absl::StatusOr<GridMatrix> CtLinear(const SafetensorsFolder& file,
                                    const LinearSpec& spec,
                                    const quant::Grid& grid) {
  const auto* packed = file.Find(absl::StrCat(spec.hf_name, ".weight_packed"));
  const auto* scale = file.Find(absl::StrCat(spec.hf_name, ".weight_scale"));
  const auto* shape = file.Find(absl::StrCat(spec.hf_name, ".weight_shape"));
  if (packed == nullptr || scale == nullptr || shape == nullptr) {
    return absl::NotFoundError("missing");
  }
  const int bits = quant::CodeBits(grid);
  const int64_t groups = spec.in / grid.group;
  const int64_t dims[2] = {spec.out, spec.in};
  if (packed->dtype != "I32" || scale->dtype != "F32" ||
      shape->dtype != "I64" ||
      scale->shape != std::vector<int64_t>{spec.out, groups} ||
      packed->shape != std::vector<int64_t>{spec.out, spec.in * bits / 32} ||
      shape->data.size() != sizeof(dims) ||
      std::memcmp(shape->data.data(), dims, sizeof(dims)) != 0) {
    return absl::InvalidArgumentError("wrong type or shape");
  }
  std::vector<int32_t> words(packed->data.size() / sizeof(int32_t));
  std::memcpy(words.data(), packed->data.data(), packed->data.size());
  GridMatrix matrix{spec.out, spec.in, {}, {}, &grid};
  ASSIGN_OR_RETURN(matrix.codes,
                   quant::UnpackCt(words, spec.out, spec.in, bits));
  matrix.scales.resize(spec.out * groups);
  std::memcpy(matrix.scales.data(), scale->data.data(), scale->data.size());
  return matrix;
}

// The F32 values of a tensor, or an error that says what is wrong with it.
absl::StatusOr<std::vector<float>> F32Values(const SafetensorsFolder& file,
                                             const std::string& name,
                                             size_t size) {
  const auto* found = file.Find(name);
  if (found == nullptr) return absl::NotFoundError("missing");
  if (found->dtype != "F32" || found->data.size() != size * sizeof(float)) {
    return absl::InvalidArgumentError("wrong type or shape");
  }
  std::vector<float> values(size);
  std::memcpy(values.data(), found->data.data(), found->data.size());
  return values;
}

double MaxError(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error = std::max(error, std::fabs(double{a[i]} - b[i]));
  }
  return error;
}

// The file's floats against a matrix's values.
void CountValues(v1::EquivalenceReport* report, absl::string_view artifact,
                 const std::string& name, const GridMatrix& matrix,
                 const SafetensorsFolder& file) {
  const auto* found = file.Find(name);
  if (found == nullptr || found->dtype != "F32" ||
      found->data.size() != matrix.codes.size() * sizeof(float)) {
    Count(report, artifact, name,
          found == nullptr ? "missing" : "wrong type or shape", kUnknownError);
    return;
  }
  bool same = true;
  double error = 0;
  for (const auto [begin, end] : model::RowParts(matrix.rows, matrix.cols)) {
    const std::vector<float> expected = DequantizeRows(matrix, begin, end);
    std::vector<float> values(expected.size());
    std::memcpy(values.data(),
                found->data.data() + begin * matrix.cols * sizeof(float),
                values.size() * sizeof(float));
    if (SameBits(values, expected)) continue;
    same = false;
    error = std::max(error, MaxError(values, expected));
  }
  Count(report, artifact, name, same ? "" : "values differ", error);
}

// A Gemma 3 norm is written as stored - 1; the loader computes 1 + w in f32.
void CountNorm(v1::EquivalenceReport* report, absl::string_view artifact,
               const model::NormSpec& spec, const std::vector<float>& stored,
               const SafetensorsFolder& file) {
  const std::string& name = spec.hf_name;
  const auto found = F32Values(file, name, stored.size());
  if (!found.ok()) {
    Count(report, artifact, name, found.status().message(), kUnknownError);
    return;
  }
  std::vector<float> written(stored.size());
  std::vector<float> loaded(stored.size());
  for (size_t i = 0; i < stored.size(); ++i) {
    written[i] = stored[i] - spec.gguf_offset;
    loaded[i] = spec.gguf_offset + (*found)[i];
  }
  std::string reason;
  if (!SameBits(loaded, stored)) reason = kNormReason;
  if (!SameBits(*found, written)) reason = "values differ";
  Count(report, artifact, name, reason, MaxError(loaded, stored));
}

// Names every tensor of the artifact that nothing was compared with.
void CountUnexpected(v1::EquivalenceReport* report, absl::string_view artifact,
                     const std::vector<std::string>& names,
                     const std::set<std::string>& expected) {
  for (const std::string& name : names) {
    if (expected.count(name) == 0) {
      Count(report, artifact, name, "unexpected", kUnknownError);
    }
  }
}

}  // namespace

absl::Status CompareMergedGguf(const GridModel& grid, const std::string& path,
                               const ProgressFn& progress,
                               v1::EquivalenceReport* report) {
  constexpr char kArtifact[] = "gguf";
  ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
  const auto& tensors = grid.base().tensors();
  std::set<std::string> expected;
  int64_t done = 0;
  for (const GgufFile::Tensor& tensor : tensors) {
    expected.insert(tensor.name);
    if (const GridNorm* norm = grid.FindNorm(tensor.name)) {
      CountBytes(report, kArtifact,
                 {tensor.name, GgmlType::kF32, tensor.dims, norm->data}, *file);
    } else {
      ASSIGN_OR_RETURN(const GridMatrix matrix, grid.MatrixByName(tensor.name));
      CountMatrix(report, kArtifact, tensor.name, matrix,
                  GgufMatrix(*file, tensor, matrix.rows, matrix.cols));
    }
    if (progress) {
      RETURN_IF_ERROR(progress("compare gguf", ++done, tensors.size()));
    }
  }
  std::vector<std::string> names;
  for (const auto& tensor : file->tensors()) names.push_back(tensor.name);
  CountUnexpected(report, kArtifact, names, expected);
  return absl::OkStatus();
}

absl::Status CompareCompressedTensors(const GridModel& grid,
                                      const std::string& folder,
                                      const ProgressFn& progress,
                                      v1::EquivalenceReport* report) {
  constexpr char kArtifact[] = "compressed-tensors";
  ASSIGN_OR_RETURN(const auto file, SafetensorsFolder::Open(folder));
  std::set<std::string> expected;
  int64_t done = 0;
  for (const LinearSpec& spec : grid.linears()) {
    ASSIGN_OR_RETURN(const GridMatrix matrix, grid.Linear(spec));
    if (!IsPackedInCt(spec)) {
      expected.insert(spec.HfWeightName());
      CountValues(report, kArtifact, spec.HfWeightName(), matrix, *file);
    } else {
      for (const char* part :
           {".weight_packed", ".weight_scale", ".weight_shape"}) {
        expected.insert(absl::StrCat(spec.hf_name, part));
      }
      CountMatrix(report, kArtifact, spec.hf_name, matrix,
                  CtLinear(*file, spec, *matrix.grid));
    }
    if (progress) {
      RETURN_IF_ERROR(progress("compare compressed-tensors", ++done,
                               grid.linears().size()));
    }
  }
  for (const GridNorm& norm : grid.norms()) {
    if (norm.spec.hf_name.empty()) continue;
    expected.insert(norm.spec.hf_name);
    CountNorm(report, kArtifact, norm.spec, norm.Values(), *file);
  }
  for (const model::TableSpec& spec : grid.tables()) {
    expected.insert(spec.hf_name);
    ASSIGN_OR_RETURN(const GridMatrix matrix, grid.Table(spec));
    CountValues(report, kArtifact, spec.hf_name, matrix, *file);
  }
  std::vector<std::string> names;
  for (const auto& entry : file->tensors()) names.push_back(entry.first);
  CountUnexpected(report, kArtifact, names, expected);
  return absl::OkStatus();
}

absl::Status CompareLoraGguf(const model::Adapter& adapter,
                             const std::string& path,
                             v1::EquivalenceReport* report) {
  constexpr char kArtifact[] = "lora-gguf";
  ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
  std::set<std::string> expected;
  for (const model::AdapterPair& pair : adapter.pairs()) {
    const std::vector<uint8_t> b_bytes = adapter.GgufB(pair);
    const GgufFile::Tensor a{absl::StrCat(pair.spec.gguf_name, ".lora_a"),
                             GgmlType::kF32,
                             {pair.spec.in, pair.rank},
                             pair.a};
    const GgufFile::Tensor b{absl::StrCat(pair.spec.gguf_name, ".lora_b"),
                             GgmlType::kF32,
                             {pair.rank, pair.spec.out},
                             b_bytes};
    for (const GgufFile::Tensor& tensor : {a, b}) {
      expected.insert(tensor.name);
      CountBytes(report, kArtifact, tensor, *file);
    }
  }
  std::vector<std::string> names;
  for (const auto& tensor : file->tensors()) names.push_back(tensor.name);
  CountUnexpected(report, kArtifact, names, expected);
  ASSIGN_OR_RETURN(const float alpha, file->GetF32("adapter.lora.alpha"));
  Count(report, kArtifact, "adapter.lora.alpha",
        alpha == adapter.gguf_alpha() ? "" : "value differs",
        std::fabs(alpha - adapter.gguf_alpha()));
  return absl::OkStatus();
}

absl::Status ComparePeft(const model::Adapter& adapter,
                         const std::string& folder,
                         v1::EquivalenceReport* report) {
  constexpr char kArtifact[] = "peft";
  std::vector<LinearSpec> linears;
  for (const model::AdapterPair& pair : adapter.pairs())
    linears.push_back(pair.spec);
  ASSIGN_OR_RETURN(const auto found,
                   model::Adapter::OpenPeft(
                       absl::StrCat(folder, "/adapter_model.safetensors"),
                       absl::StrCat(folder, "/adapter_config.json"), linears));
  double scale_error = 0;
  for (size_t i = 0; i < adapter.pairs().size(); ++i) {
    const model::AdapterPair& pair = adapter.pairs()[i];
    const bool there = i < found->pairs().size();
    if (there) {
      scale_error = std::max(scale_error,
                             std::fabs(found->pairs()[i].scale - pair.scale));
    }
    Count(report, kArtifact, pair.a_name,
          there && SameBytes(found->pairs()[i].a, pair.a) ? "" : "differs",
          kUnknownError);
    Count(report, kArtifact, pair.b_name,
          there && SameBytes(found->pairs()[i].b, pair.b) ? "" : "differs",
          kUnknownError);
  }
  Count(report, kArtifact, "lora_alpha",
        scale_error == 0 ? "" : "value differs", scale_error);
  return absl::OkStatus();
}

absl::Status RequireEquivalence(const v1::EquivalenceReport& report) {
  for (const v1::TensorDifference& difference : report.differing()) {
    if (difference.reason() == kNormReason) continue;
    return common::MakeError(
        absl::StatusCode::kDataLoss, "EQUIVALENCE_FAILED",
        absl::StrCat("tensor ", difference.tensor(), " of ",
                     difference.artifact(), ": ", difference.reason()),
        {{"artifact", difference.artifact()}, {"tensor", difference.tensor()}});
  }
  return absl::OkStatus();
}

}  // namespace onegrid::exporter
