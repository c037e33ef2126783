// The part of a file of routes that describes upstreams.
#ifndef SERVICES_GATEWAY_UPSTREAM_READER_H_
#define SERVICES_GATEWAY_UPSTREAM_READER_H_

#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "services/gateway/route_config.h"
#include "services/gateway/yaml_fields.h"

namespace onegrid::gateway {

// The key "name": a token of HTTP headers and a label of metrics alike.
void ReadName(YamlFields& fields, std::string* name);

// One upstream, with its key, which is read from a file. `status` takes the
// first error.
UpstreamConfig ReadUpstream(const YAML::Node& node, const std::string& where,
                            const std::filesystem::path& folder,
                            absl::Status* status);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_UPSTREAM_READER_H_
