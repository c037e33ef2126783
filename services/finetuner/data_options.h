// How a dataset's files are read for training.
#ifndef SERVICES_FINETUNER_DATA_OPTIONS_H_
#define SERVICES_FINETUNER_DATA_OPTIONS_H_

#include <optional>

#include "services/model/dataset_format.h"

namespace onegrid::finetuner {

// Which answers of a conversation are labels.
enum class TrainOn {
  kAll,
  kLast,
};

// "all", "last".
inline const char* TrainOnName(TrainOn train_on) {
  return train_on == TrainOn::kAll ? "all" : "last";
}

struct DataOptions {
  // Not set: each file's format is that of its first record.
  std::optional<model::DataFormat> format;
  TrainOn train_on = TrainOn::kAll;
  // Leave out records that cannot be learned and list them in the report;
  // false: refuse the file.
  bool drop_invalid = false;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_DATA_OPTIONS_H_
