#ifndef SERVICES_MODEL_MODULE_PATTERN_H_
#define SERVICES_MODEL_MODULE_PATTERN_H_

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/model/name_pattern.h"

namespace onegrid::model {

// A pattern on the Hugging Face names of linear modules
// ("model.layers.0.self_attn.q_proj"): a NamePattern that fits the whole name
// or all of it behind some dot. So "q_proj" is every query projection and
// "layers.{0-5}.mlp.*" the MLPs of six layers. Immutable after Parse.
class ModulePattern {
 public:
  // InvalidArgument (INVALID_NAME_PATTERN): the errors of NamePattern::Parse,
  // or a last part without * that is not a kind of linear (q_proj, k_proj,
  // v_proj, o_proj, gate_proj, up_proj, down_proj), which nothing could match.
  static absl::StatusOr<ModulePattern> Parse(absl::string_view text);

  const std::string& text() const { return pattern_.text(); }
  bool Matches(absl::string_view module) const;

 private:
  explicit ModulePattern(NamePattern pattern) : pattern_(std::move(pattern)) {}

  NamePattern pattern_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_MODULE_PATTERN_H_
