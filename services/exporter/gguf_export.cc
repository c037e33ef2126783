#include "services/exporter/gguf_export.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/error_info.h"
#include "services/exporter/copy_metadata.h"
#include "services/exporter/file_type.h"
#include "services/model/gguf_writer.h"

namespace onegrid::exporter {

using model::GgufFile;
using model::GgufWriter;
using quant::GgmlType;

namespace {

uint32_t FileTypeOfModel(const GridModel& model) {
  GridWeights weights;
  for (const model::LinearSpec& spec : model.linears()) {
    weights[&model.GridOf(spec)] += spec.out * spec.in;
  }
  return FileTypeOf(weights);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> WriteMergedGguf(
    const GridModel& grid, const std::string& folder, int64_t max_shard_bytes,
    const ProgressFn& progress) {
  GgufWriter writer;
  CopyMetadata(grid.base(), &writer,
               {{"general.file_type", FileTypeOfModel(grid)}});
  const std::vector<GgufFile::Tensor>& tensors = grid.base().tensors();
  const auto matrices =
      static_cast<int64_t>(grid.linears().size() + grid.tables().size());
  int64_t done = 0;
  for (const GgufFile::Tensor& tensor : tensors) {
    if (const auto* norm = grid.FindNorm(tensor.name)) {
      RETURN_IF_ERROR(writer.AddTensor(tensor.name, GgmlType::kF32, tensor.dims,
                                       norm->data));
    } else {
      RETURN_IF_ERROR(writer.AddProduced(
          tensor.name, quant::BlockType(grid.GridOf(tensor.name)), tensor.dims,
          [&](const GgufWriter::Sink& sink) -> absl::Status {
            ASSIGN_OR_RETURN(const quant::GridMatrix matrix,
                             grid.MatrixByName(tensor.name));
            ASSIGN_OR_RETURN(const std::vector<uint8_t> blocks,
                             quant::PackBlocks(matrix));
            RETURN_IF_ERROR(sink(blocks));
            return progress ? progress("gguf", ++done, matrices)
                            : absl::OkStatus();
          }));
    }
  }
  return writer.WriteShards(folder, "model", max_shard_bytes);
}

absl::Status WriteLoraGguf(const GridModel& grid, const model::Adapter& adapter,
                           const std::string& base_name,
                           const std::string& path) {
  GgufWriter writer;
  ASSIGN_OR_RETURN(const std::string architecture,
                   grid.base().GetString("general.architecture"));
  writer.Set("general.architecture", architecture);
  writer.Set("general.type", std::string("adapter"));
  writer.Set("general.name", absl::StrCat(base_name, " adapter"));
  writer.Set("adapter.type", std::string("lora"));
  writer.Set("adapter.lora.alpha", adapter.gguf_alpha());
  for (const model::AdapterPair& pair : adapter.pairs()) {
    RETURN_IF_ERROR(
        writer.AddTensor(absl::StrCat(pair.spec.gguf_name, ".lora_a"),
                         GgmlType::kF32, {pair.spec.in, pair.rank}, pair.a));
    RETURN_IF_ERROR(writer.AddTensor(
        absl::StrCat(pair.spec.gguf_name, ".lora_b"), GgmlType::kF32,
        {pair.rank, pair.spec.out}, adapter.GgufB(pair)));
  }
  return writer.WriteTo(path);
}

}  // namespace onegrid::exporter
