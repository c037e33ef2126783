#ifndef SERVICES_MODEL_GEMMA_QUANT_CONFIG_H_
#define SERVICES_MODEL_GEMMA_QUANT_CONFIG_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace re2 {
class RE2;
}  // namespace re2

namespace onegrid::model {

// The quantization_config of quant_method "gemma" (Google's mobile
// checkpoints): how many bits the weights of a module have. Its rules are those
// of transformers 5.23 (integrations/gemma_quant.py and
// quantizers/quantizers_utils.py). It is outside input. Immutable after Parse.
class GemmaQuantConfig {
 public:
  // pattern_order: the keys of module_quant_configs as they stand in the file,
  // of which the object in `json` no longer tells the order. tied_head: the
  // model's head is its embedding, which then is not packed unless the file
  // lists what is not. `path` is for messages.
  //
  // DataLoss (CORRUPT_FILE): a member is of another type. Unimplemented
  // (UNSUPPORTED_QUANTIZATION), naming the member: other bits than 2, 4 and 8,
  // an option of a module that this reader does not know, and expressions that
  // take more than linear time (lookaheads).
  static absl::StatusOr<GemmaQuantConfig> Parse(
      absl::string_view json, const std::vector<std::string>& pattern_order,
      bool tied_head, const std::string& path);

  // By the module's name in transformers; 0: it is not packed. Of several
  // expressions in module_quant_configs the one counts that fits from the
  // earliest place of the name on, and of those the first.
  int Bits(absl::string_view module, bool embedding) const;

 private:
  class Parser;
  // An entry of modules_to_not_convert: an expression for whole parts of a
  // name, from its start on, or the end of a name.
  struct Skipped {
    std::string text;
    std::shared_ptr<const re2::RE2> whole_parts;
    std::shared_ptr<const re2::RE2> with_dot;  // the last part's dot included
  };

  bool IsSkipped(absl::string_view module) const;

  int bits_ = 4;
  bool embeddings_ = false;
  std::shared_ptr<const re2::RE2> patterns_;  // a group each; null: none
  std::vector<int> pattern_groups_;           // the number of each one's group
  std::vector<int> pattern_bits_;
  std::vector<Skipped> skipped_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GEMMA_QUANT_CONFIG_H_
