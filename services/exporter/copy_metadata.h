// Carries a GGUF's metadata over to a file made from it.
#ifndef SERVICES_EXPORTER_COPY_METADATA_H_
#define SERVICES_EXPORTER_COPY_METADATA_H_

#include <map>
#include <string>

#include "services/model/gguf_reader.h"
#include "services/model/gguf_value.h"
#include "services/model/gguf_writer.h"

namespace onegrid::exporter {

// Sets every key of `from` but general.alignment, which is the writer's own,
// and those of `changed`; in order of the keys, so that the same metadata
// gives the same bytes.
inline void CopyMetadata(
    const model::GgufFile& from, model::GgufWriter* to,
    const std::map<std::string, model::GgufValue>& changed = {}) {
  std::map<std::string, model::GgufValue> all = from.metadata();
  for (const auto& [key, value] : changed) all[key] = value;
  all.erase("general.alignment");
  for (const auto& [key, value] : all) to->Set(key, value);
}

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_COPY_METADATA_H_
