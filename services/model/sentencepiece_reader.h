#ifndef SERVICES_MODEL_SENTENCEPIECE_READER_H_
#define SERVICES_MODEL_SENTENCEPIECE_READER_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/model/sentencepiece_model.h"

namespace onegrid::model {

// The vocabulary of a serialized sentencepiece.ModelProto (a tokenizer.model
// file), the inverse of SerializeModelProto: pieces with score and type, and
// the ids of the trainer_spec. Fields that are not needed are skipped. The
// bytes are outside input; `path` is for messages.
// DataLoss (CORRUPT_FILE): cut short, also where a field ends; not a
// ModelProto; or what CheckTokens refuses. Unimplemented
// (UNSUPPORTED_TOKENIZER): not a BPE model.
absl::StatusOr<Vocabulary> VocabularyFromModelProto(absl::string_view bytes,
                                                    const std::string& path);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_SENTENCEPIECE_READER_H_
