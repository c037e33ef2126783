#include "services/finetuner/merge_adapter.h"

#include <memory>

#include "services/common/adapter_files.h"
#include "services/common/error_info.h"
#include "services/finetuner/adapter_tensors.h"
#include "services/model/adapter.h"
#include "services/model/gemma_config.h"

namespace onegrid::finetuner {

absl::Status MergeAdapter(const std::string& path,
                          FloatCheckpoint* checkpoint) {
  ASSIGN_OR_RETURN(const common::AdapterFiles files,
                   common::FindAdapterFiles(path));
  ASSIGN_OR_RETURN(
      const std::unique_ptr<model::Adapter> adapter,
      model::Adapter::Open(files,
                           model::ArchitectureName(checkpoint->config.family),
                           checkpoint->specs));
  // Both are in the order of the linears.
  size_t linear = 0;
  for (const model::AdapterPair& pair : adapter->pairs()) {
    while (checkpoint->specs[linear].hf_name != pair.spec.hf_name) ++linear;
    checkpoint->linears[linear].addmm_(AdapterB(pair), AdapterA(pair), 1,
                                       pair.scale);
  }
  return absl::OkStatus();
}

}  // namespace onegrid::finetuner
