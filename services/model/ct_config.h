#ifndef SERVICES_MODEL_CT_CONFIG_H_
#define SERVICES_MODEL_CT_CONFIG_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace re2 {
class RE2;
}  // namespace re2

namespace onegrid::model {

// How compressed-tensors packs the weights of a module: symmetric integers.
struct CtScheme {
  int bits = 0;       // 2, 4 or 8
  int64_t group = 0;  // inputs to a scale; 0: one scale for each row

  friend bool operator==(const CtScheme& a, const CtScheme& b) {
    return a.bits == b.bits && a.group == b.group;
  }
};

// A module that a config group may name, by itself or by its class.
struct CtModule {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  std::string kind;  // "Linear", "Embedding"
};

// The quantization_config of compressed-tensors, format "pack-quantized": which
// modules are packed, and how. It is outside input. Immutable after Parse.
class CtConfig {
 public:
  // `path` is for messages. DataLoss (CORRUPT_FILE): a member is missing or of
  // another type. Unimplemented (UNSUPPORTED_QUANTIZATION), naming group and
  // member: another method or format, zero points, an activation order that
  // changes the files, quantized activations or cache, other bits than 2, 4 and
  // 8, other strategies than group and channel, members this reader does not
  // know, and expressions that take more than linear time (lookaheads).
  static absl::StatusOr<CtConfig> Parse(absl::string_view json,
                                        const std::string& path);

  // The scheme of each packed module, by name. As in compressed-tensors a
  // target is a name, an expression behind "re:" that must fit from the start
  // of the name on, or a class, and the more exact one of several wins.
  // DataLoss (CORRUPT_FILE): a config group that names none of the modules, or
  // two that name one module equally well and say different things.
  absl::StatusOr<std::map<std::string, CtScheme>> Assign(
      absl::Span<const CtModule> modules) const;

 private:
  struct Target {
    std::string text;
    std::shared_ptr<const re2::RE2> pattern;  // null: a name or a class
  };
  struct Group {
    std::string name;
    CtScheme scheme;
    std::vector<Target> targets;
  };
  class Parser;

  static int Exactness(const std::vector<Target>& targets,
                       const CtModule& module);
  absl::StatusOr<const Group*> GroupOf(const CtModule& module,
                                       std::vector<bool>& used) const;

  std::string path_;
  std::vector<Group> groups_;
  std::vector<Target> ignored_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_CT_CONFIG_H_
