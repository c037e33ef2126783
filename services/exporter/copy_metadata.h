// Carries a GGUF's metadata over to a file made from it.
#ifndef SERVICES_EXPORTER_COPY_METADATA_H_
#define SERVICES_EXPORTER_COPY_METADATA_H_

#include "services/model/gguf_reader.h"
#include "services/model/gguf_writer.h"

namespace onegrid::exporter {

// Sets every key of `from` but general.alignment, which is the writer's own.
inline void CopyMetadata(const model::GgufFile& from, model::GgufWriter* to) {
  for (const auto& [key, value] : from.metadata()) {
    if (key != "general.alignment") to->Set(key, value);
  }
}

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_COPY_METADATA_H_
