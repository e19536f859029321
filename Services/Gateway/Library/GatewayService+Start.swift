import EventLoop
import Observability
import RPC
import ServiceSupport

/// How the executable makes the service from its command line.
extension GatewayService {
    /// Its command line.
    public static let options = GatewayOptions.commandLine

    /// Connects to the attention instances and listens, for the checkpoint, or the model that `emulation` makes.
    ///
    /// - Throws: `UsageError`, `StartError`, `CheckpointError` or `LoopError` with the sentence to print.
    public static func start(
        _ values: OptionValues, _ loop: UVLoop, emulation: ((OptionValues) throws -> ServedModel)? = nil
    ) async throws -> GatewayService {
        let values = try ServiceProcess.hold(["http-port", "rpc-port"], values, on: loop)
        let options = try GatewayOptions(values)
        let model =
            try ServiceInputs.isEmulated(values)
            ? try ServiceInputs.required(emulation)(values) : try ServedModel(values)
        for note in model.notes { ServiceProcess.complain("ironling-gateway: note: \(note)") }
        let service = GatewayService(model, options, loop)
        try await ServiceProcess.waitForPeers(values, service: service.name, loop: loop) {
            service.waiting
        } connect: {
            try await service.connect(timeoutMicroseconds: $0)
        }
        let httpPort = try service.listenHTTP(host: options.host, port: options.httpPort)
        let port = try service.listen(
            host: options.host, port: options.rpcPort, clientSecret: options.clientSecret)
        ServiceProcess.announce(
            "ironling-gateway ready: HTTP port \(httpPort), binary port \(port), model "
                + (options.servedName ?? model.name))
        return service
    }

    private convenience init(_ model: ServedModel, _ options: GatewayOptions, _ loop: UVLoop) {
        let logger = options.logger
        self.init(
            modelName: options.servedName ?? model.name, configuration: model.configuration, codec: model.codec,
            identity: PeerIdentity(
                role: "gateway", instanceID: ServiceProcess.instanceID("gateway"), fingerprint: model.fingerprint,
                contents: model.contents),
            attention: options.attention, secret: options.secret, placement: options.placement,
            timeoutMicroseconds: options.timeoutMicroseconds, loop: loop, retries: options.retries,
            http: options.http, drainMicroseconds: options.drainMicroseconds, isEmulated: model.isEmulated,
            defaults: model.defaults,
            onChange: {
                logger.info("instances", ["of": .string("\($0.address)"), "change": LogValue(describing: $1)])
            })
    }
}
