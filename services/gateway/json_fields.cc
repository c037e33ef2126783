#include "services/gateway/json_fields.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace onegrid::gateway {

using nlohmann::json;

JsonFields::JsonFields(const json& object) : object_(object) {
  if (!object.is_object()) {
    Fail(InvalidField("", absl::StrCat("the body is a JSON ",
                                       object.type_name(), ", not an object")));
  }
}

const json* JsonFields::Find(const char* name) const {
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void JsonFields::Fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

namespace {

ApiError WrongType(const char* name, const json& value,
                   absl::string_view expected) {
  return InvalidField(name, absl::StrCat(name, " is a ", value.type_name(),
                                         ", expected ", expected));
}

}  // namespace

void JsonFields::Read(const char* name, bool* out) {
  const json* value = Find(name);
  if (value == nullptr || error_) return;
  if (!value->is_boolean()) return Fail(WrongType(name, *value, "a boolean"));
  *out = value->get<bool>();
}

void JsonFields::Read(const char* name, std::string* out) {
  const json* value = Find(name);
  if (value == nullptr || error_) return;
  if (!value->is_string()) return Fail(WrongType(name, *value, "a string"));
  *out = value->get<std::string>();
}

void JsonFields::Read(const char* name, int64_t min, int64_t max,
                      int64_t* out) {
  const json* value = Find(name);
  if (value == nullptr || error_) return;
  if (!value->is_number_integer()) {
    return Fail(WrongType(name, *value, "an integer"));
  }
  const bool too_large =
      value->is_number_unsigned() &&
      value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t number = too_large ? INT64_MAX : value->get<int64_t>();
  if (too_large || number < min || number > max) {
    return Fail(
        InvalidField(name, absl::StrCat(name, " is ", value->dump(),
                                        ", expected ", min, "..", max)));
  }
  *out = number;
}

void JsonFields::Read(const char* name, double min, double max, bool above_min,
                      float* out) {
  const json* value = Find(name);
  if (value == nullptr || error_) return;
  if (!value->is_number()) return Fail(WrongType(name, *value, "a number"));
  const double number = value->get<double>();
  // Of a comparison with a NaN nothing holds, so this is written positively.
  const bool inside =
      (above_min ? number > min : number >= min) && number <= max;
  if (!inside) {
    return Fail(InvalidField(
        name, absl::StrCat(name, " is ", value->dump(), ", expected ",
                           above_min ? "more than " : "", min,
                           above_min ? " and at most " : "..", max)));
  }
  *out = static_cast<float>(number);
  // Too small for a float, but not the minimum, which means another thing.
  if (above_min && *out <= min) {
    *out = std::nextafter(static_cast<float>(min), static_cast<float>(max));
  }
}

void JsonFields::Read(const char* name, std::vector<std::string>* out) {
  const json* value = Find(name);
  if (value == nullptr || error_) return;
  if (value->is_string()) {
    *out = {value->get<std::string>()};
    return;
  }
  if (!value->is_array()) {
    return Fail(WrongType(name, *value, "a string or a list of strings"));
  }
  std::vector<std::string> strings;
  for (const json& element : *value) {
    if (!element.is_string()) {
      return Fail(InvalidField(
          name, absl::StrCat("an element of ", name, " is a ",
                             element.type_name(), ", expected a string")));
    }
    strings.push_back(element.get<std::string>());
  }
  *out = std::move(strings);
}

}  // namespace onegrid::gateway
