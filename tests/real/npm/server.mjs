// A node built from the library's codecs and multiplexer.
// node server.mjs MAGIC accept|genesis|mismatch|unreadable|refuse     prints {"port": N}; ends with its stdin.
import net from "node:net";
import { endAfter, HASH, n2n, tell } from "./library.mjs";

const [magic, behaviour] = [Number(process.argv[2]), process.argv[3]];
const { MiniProtocol } = n2n;

const point =
  behaviour === "genesis" ? {} : { blockHeader: { slotNumber: 17n, hash: Uint8Array.from(Buffer.from(HASH, "hex")) } };
const tip = { point, blockNo: behaviour === "genesis" ? 0n : 7n };

function shake(payload) {
  const { versionTable } = n2n.HandshakeProposeVersion.fromCbor(payload, true);
  const version = Math.max(...Object.keys(versionTable).map(Number));
  const refuse = (reason) => new n2n.HandshakeRefuse({ reason }, true);
  if (behaviour === "mismatch") return refuse(new n2n.RefuseReasonVersionMismatch([7, 13]));
  if (behaviour === "unreadable")
    return refuse(new n2n.RefuseReasonHandshakeDecodeError({ version, decodeError: "unordered version" }));
  if (behaviour === "refuse" || versionTable[version].networkMagic !== magic)
    return refuse(new n2n.RefuseReasonRefuse({ version, errorMessage: "version data mismatch: another magic" }));
  const versionData = new n2n.VersionData(
    { networkMagic: magic, initiatorOnlyDiffusionMode: true, peerSharing: false, query: false },
    { includePeerSharing: true, includeQuery: true },
  );
  return new n2n.HandshakeAcceptVersion({ versionNumber: version, versionData }, true);
}

function followed(message) {
  if (!(message instanceof n2n.ChainSyncFindIntersect)) return undefined;
  const origin = message.points.find((p) => p.isOrigin());
  return origin
    ? new n2n.ChainSyncIntersectFound({ point: origin, tip })
    : new n2n.ChainSyncIntersectNotFound({ tip });
}

function kept(message) {
  return message instanceof n2n.KeepAliveRequest ? new n2n.KeepAliveResponse({ cookie: message.cookie }) : undefined;
}

const server = net.createServer((socket) => {
  const mplexer = new n2n.Multiplexer({ protocolType: "node-to-node", connect: () => socket });
  const say = (protocol, answer) => {
    if (answer) mplexer.send(answer.toCbor().toBuffer(), { hasAgency: false, protocol });
  };
  mplexer.on("error", () => socket.destroy());
  mplexer.on(MiniProtocol.Handshake, (payload) => say(MiniProtocol.Handshake, shake(payload)));
  mplexer.on(MiniProtocol.KeepAlive, (payload) => say(MiniProtocol.KeepAlive, kept(n2n.keepAliveMessageFromCbor(payload))));
  mplexer.on(MiniProtocol.ChainSync, (payload) =>
    say(MiniProtocol.ChainSync, followed(n2n.chainSyncMessageFromCbor(payload))),
  );
  socket.on("end", () => {
    mplexer.close();
    socket.end();
  });
});
server.listen(0, "127.0.0.1", () => tell({ port: server.address().port }));
endAfter(120);
