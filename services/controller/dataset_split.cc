#include "services/controller/dataset_split.h"

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::controller {

const v1::DatasetSplit& SplitOf(const v1::Dataset& dataset,
                                const std::string& split) {
  if (split == "train") return dataset.train();
  if (split == "validation") return dataset.validation();
  return dataset.test();
}

absl::Status CheckScorable(const v1::Dataset& dataset,
                           const std::string& split) {
  const v1::DatasetSplit& found = SplitOf(dataset, split);
  if (found.format() != v1::PLAIN_TEXT && found.conversations() == 0) {
    return absl::OkStatus();
  }
  return common::MakeError(
      absl::StatusCode::kFailedPrecondition, "NOT_SCORABLE",
      absl::StrCat("an evaluation of kind TASK needs lines of {\"prompt\", "
                   "\"completion\"} strings; split ",
                   split, " of ", dataset.name(), " has the format ",
                   v1::DatasetFormat_Name(found.format()), " with ",
                   found.conversations(), " conversations"),
      {{"dataset", dataset.name()}, {"split", split}});
}

}  // namespace onegrid::controller
