// The fields of a request that say how tokens are chosen.
#ifndef SERVICES_GATEWAY_SAMPLING_FIELDS_H_
#define SERVICES_GATEWAY_SAMPLING_FIELDS_H_

#include <cstdint>
#include <optional>

#include "proto/onegrid/v1/generation.pb.h"
#include "services/gateway/json_fields.h"

namespace onegrid::gateway {

// Reads all of them with the API's defaults; what is wrong is noted in
// `fields`. The seed is apart, for it may be absent. Ids of logit_bias are
// checked against the vocabulary by the backend only, which knows it.
void ReadSampling(JsonFields& fields, v1::Sampling* sampling,
                  std::optional<uint64_t>* seed);

}  // namespace onegrid::gateway

#endif  // SERVICES_GATEWAY_SAMPLING_FIELDS_H_
