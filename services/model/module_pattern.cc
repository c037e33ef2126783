#include "services/model/module_pattern.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"

namespace onegrid::model {
namespace {

constexpr const char* kKinds[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                  "gate_proj", "up_proj", "down_proj"};

}  // namespace

absl::StatusOr<ModulePattern> ModulePattern::Parse(absl::string_view text) {
  ASSIGN_OR_RETURN(NamePattern pattern, NamePattern::Parse(text));
  const size_t dot = text.rfind('.');
  const absl::string_view last =
      dot == absl::string_view::npos ? text : text.substr(dot + 1);
  if (!absl::StrContains(last, '*') &&
      std::find(std::begin(kKinds), std::end(kKinds), last) ==
          std::end(kKinds)) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "INVALID_NAME_PATTERN",
        absl::StrCat(
            "the pattern \"", text, "\" ends in \"", last,
            "\", which is no kind of linear: ", absl::StrJoin(kKinds, " ")),
        {{"pattern", std::string(text)}});
  }
  return ModulePattern(std::move(pattern));
}

bool ModulePattern::Matches(absl::string_view module) const {
  for (;;) {
    if (pattern_.Matches(module)) return true;
    const size_t dot = module.find('.');
    if (dot == absl::string_view::npos) return false;
    module.remove_prefix(dot + 1);
  }
}

}  // namespace onegrid::model
