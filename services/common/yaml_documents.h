// What YAML::Load does not tell of a text.
#ifndef SERVICES_COMMON_YAML_DOCUMENTS_H_
#define SERVICES_COMMON_YAML_DOCUMENTS_H_

#include "absl/strings/string_view.h"

namespace onegrid::common {

// Whether a second document follows the first one, which YAML::Load would drop
// without a word. (YAML::LoadAll never ends on some texts, such as ",".)
// Throws YAML::ParserException.
bool HasMoreYamlDocuments(absl::string_view text);

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_YAML_DOCUMENTS_H_
