// Typed reading of the fields of one JSON object, stopping at the first error.
#ifndef SERVICES_GATEWAY_JSON_FIELDS_H_
#define SERVICES_GATEWAY_JSON_FIELDS_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "services/gateway/openai_error.h"

namespace onegrid::gateway {

// Each Read leaves `out` as it is when the field is absent or null, or when
// there was an error before. The object must outlive this.
// Thread-compatible.
class JsonFields {
 public:
  // Error: `object` is not an object.
  explicit JsonFields(const nlohmann::json& object);

  // The value of a field; nullptr when it is absent or null.
  const nlohmann::json* Find(const char* name) const;

  void Read(const char* name, bool* out);
  void Read(const char* name, std::string* out);
  // Error: not an integer, or outside min..max.
  void Read(const char* name, int64_t min, int64_t max, int64_t* out);
  // Error: not a number, or outside min..max. With `above_min`, min itself is
  // outside, too.
  void Read(const char* name, double min, double max, bool above_min,
            float* out);
  // A string or a list of strings.
  void Read(const char* name, std::vector<std::string>* out);

  // Notes an error unless there is one already.
  void Fail(ApiError error);

  const std::optional<ApiError>& error() const { return error_; }

 private:
  const nlohmann::json& object_;
  std::optional<ApiError> error_;
};

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_JSON_FIELDS_H_
