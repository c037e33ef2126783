#include "services/exporter/gguf_export.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quant/q4_0.h"
#include "services/common/error_info.h"
#include "services/exporter/copy_metadata.h"
#include "services/model/gguf_writer.h"

namespace onegrid::exporter {

using model::GgufFile;
using model::GgufWriter;
using quant::GgmlType;

absl::Status WriteMergedGguf(const GridModel& grid, const std::string& path,
                             const ProgressFn& progress) {
  GgufWriter writer;
  CopyMetadata(grid.base(), &writer);
  const std::vector<GgufFile::Tensor>& tensors = grid.base().tensors();
  int64_t done = 0;
  for (const GgufFile::Tensor& tensor : tensors) {
    const model::LinearSpec* spec = grid.FindLinear(tensor.name);
    if (spec == nullptr) {
      RETURN_IF_ERROR(
          writer.AddTensor(tensor.name, tensor.type, tensor.dims, tensor.data));
    } else {
      ASSIGN_OR_RETURN(const quant::GridMatrix matrix, grid.Linear(*spec));
      ASSIGN_OR_RETURN(std::vector<uint8_t> packed, quant::PackQ4_0(matrix));
      RETURN_IF_ERROR(writer.AddTensor(tensor.name, GgmlType::kQ4_0,
                                       tensor.dims, std::move(packed)));
    }
    if (progress) {
      RETURN_IF_ERROR(progress("gguf", ++done, tensors.size()));
    }
  }
  return writer.WriteTo(path);
}

absl::Status WriteLoraGguf(const GridModel& grid, const Adapter& adapter,
                           const std::string& base_name,
                           const std::string& path) {
  GgufWriter writer;
  ASSIGN_OR_RETURN(const std::string architecture,
                   grid.base().GetString("general.architecture"));
  writer.Set("general.architecture", architecture);
  writer.Set("general.type", std::string("adapter"));
  writer.Set("general.name", absl::StrCat(base_name, " adapter"));
  writer.Set("adapter.type", std::string("lora"));
  writer.Set("adapter.lora.alpha", adapter.alpha());
  for (const AdapterPair& pair : adapter.pairs()) {
    RETURN_IF_ERROR(
        writer.AddTensor(absl::StrCat(pair.spec.gguf_name, ".lora_a"),
                         GgmlType::kF32, {pair.spec.in, pair.rank}, pair.a));
    RETURN_IF_ERROR(
        writer.AddTensor(absl::StrCat(pair.spec.gguf_name, ".lora_b"),
                         GgmlType::kF32, {pair.rank, pair.spec.out}, pair.b));
  }
  return writer.WriteTo(path);
}

}  // namespace onegrid::exporter
