// One JSON object of a dataset, as the record that it stands for. For
// dataset_format.h, which says what the formats are.
#ifndef SERVICES_MODEL_RECORD_PARSER_H_
#define SERVICES_MODEL_RECORD_PARSER_H_

#include <optional>
#include <string>

#include "nlohmann/json.hpp"
#include "services/model/dataset_format.h"

namespace onegrid::model {

// The format whose keys `object` has. One that fits several formats is the
// first of: a whole prompt_completion, messages, sharegpt, alpaca, text, half
// a prompt_completion.
std::optional<DataFormat> DetectFormat(const nlohmann::json& object);

// What to say when DetectFormat finds none.
std::string NoFormatProblem();

// The first key of the format that `object` lacks, in words; "" if none.
std::string MissingKeys(const nlohmann::json& object, DataFormat format);

// Fills all of `record` but its line, or returns what keeps the record from
// being learned. MissingKeys(object, format) must be "".
std::string ParseRecord(const nlohmann::json& object, DataFormat format,
                        Record* record);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_RECORD_PARSER_H_
