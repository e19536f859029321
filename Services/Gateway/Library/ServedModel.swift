import Checkpoint
import ContentIdentity
import Emulation
import ServiceSupport

/// The model a gateway serves, as far as it has to know it: a checkpoint's, or the shape of one that is emulated.
struct ServedModel {
    /// Name under which it is served unless another is asked for.
    let name: String
    /// What `config.json` says.
    let configuration: ModelConfiguration
    /// Tokenizer, if the checkpoint has one.
    let codec: CheckpointCodec?
    /// What the checkpoint's `generation_config.json` asks of requests that do not say it themselves.
    let generation: GenerationDefaults
    /// What tells it from other models.
    let fingerprint: String
    /// What its weights and the files beside them hold; nil when it is emulated.
    let contents: ContentManifest?
    /// True when answers are dummy text.
    let isEmulated: Bool

    /// The model that `--model` and `--mode` name.
    init(_ values: OptionValues) throws {
        isEmulated = try ServiceInputs.isEmulated(values)
        if isEmulated {
            let model = try EmulatedModel(try values.required("model"))
            (name, configuration, fingerprint) = (model.servedName, model.configuration, model.fingerprint)
            (codec, contents, generation) = (.bytes, nil, GenerationDefaults())
        } else {
            let checkpoint = try ServedCheckpoint.open(values)
            (name, configuration) = (checkpoint.name, checkpoint.configuration)
            fingerprint = checkpoint.fingerprint
            contents = try checkpoint.contents()
            generation = try checkpoint.generationDefaults()
            codec = try CheckpointCodec.load(checkpoint, usesBytes: values.isOn("byte-tokenizer"))
        }
    }
}
