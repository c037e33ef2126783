// Strict reading of the keys of one YAML map, stopping at the first error.
#ifndef SERVICES_GATEWAY_YAML_FIELDS_H_
#define SERVICES_GATEWAY_YAML_FIELDS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "yaml-cpp/yaml.h"

namespace onegrid::gateway {

// Each Read leaves `out` as it is when the key is absent, or when there was an
// error before. A null is a value of a wrong type. Errors are INVALID_ARGUMENT
// (INVALID_ROUTES) with the line and the name of the key, and never quote a
// value, which may be a secret in a wrong place. Thread-compatible.
class YamlFields {
 public:
  // `where`: what the map is, such as "upstream big". `status` takes the error
  // and must outlive this. Error: `node` is not a map, has a key twice or one
  // that is not among `known`.
  YamlFields(const YAML::Node& node, std::string where,
             std::vector<std::string> known, absl::Status* status);

  bool Has(const std::string& key) const { return values_.count(key) > 0; }
  // Undefined where the key is absent.
  YAML::Node Find(const std::string& key) const;
  // Error: one of these is absent.
  void Require(const std::vector<std::string>& keys);

  // Error: not a scalar, empty, longer than 4096 bytes, or with a control
  // character.
  void Read(const std::string& key, std::string* out);
  // A text or a list of at least one.
  void Read(const std::string& key, std::vector<std::string>* out);
  void Read(const std::string& key, bool* out);
  // Error: not a decimal number or outside min..max.
  void Read(const std::string& key, int64_t min, int64_t max, int64_t* out);
  void Read(const std::string& key, double min, double max, double* out);

  // Notes an error at a key, or at the map where it is absent, unless there is
  // one already.
  void Fail(const std::string& key, absl::string_view what);
  bool ok() const { return status_->ok(); }
  const std::string& where() const { return where_; }

 private:
  bool ReadScalar(const std::string& key, const YAML::Node& node,
                  std::string* out);
  // The plain scalar of a number or boolean; false if there is nothing to read.
  bool ReadPlain(const std::string& key, absl::string_view expected,
                 std::string* out);
  void FailAt(const YAML::Mark& mark, absl::string_view what);

  const std::string where_;
  absl::Status* const status_;
  YAML::Mark mark_;
  std::map<std::string, YAML::Node> values_;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_YAML_FIELDS_H_
