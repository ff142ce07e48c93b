// The library's clients against a node.
// node client.mjs PORT MAGIC      prints {"version", "cookie", "tip", "origin"} or {"refused"}; ends by itself.
import net from "node:net";
import { endAfter, KeepAliveClient, n2n, tell } from "./library.mjs";

const [port, magic] = [Number(process.argv[2]), Number(process.argv[3])];
endAfter(60);

const socket = net.connect(port, "127.0.0.1", async () => {
  const mplexer = new n2n.Multiplexer({ protocolType: "node-to-node", connect: () => socket });
  mplexer.on("error", () => process.exit(4));
  const shaken = await new n2n.HandshakeClient(mplexer).propose({
    networkMagic: magic,
    initiatorOnlyDiffusionMode: true,
    peerSharing: false,
    query: false, // the library's default is true
  });
  if (!(shaken instanceof n2n.HandshakeAcceptVersion)) {
    tell({ refused: shaken.reason });
    process.exit(0);
  }
  const { cookie } = await new KeepAliveClient(mplexer).request(54321);
  const chainSync = new n2n.ChainSyncClient(mplexer);
  const notFound = await chainSync.findIntersect([]);
  const found = await chainSync.findIntersect([n2n.ChainPoint.origin]);
  tell({
    version: shaken.versionNumber,
    magic: shaken.versionData.networkMagic,
    cookie,
    tip: notFound instanceof n2n.ChainSyncIntersectNotFound ? notFound.tip.toJson() : null,
    origin: found instanceof n2n.ChainSyncIntersectFound ? found.point.isOrigin() : null,
  });
  chainSync.done();
  mplexer.close();
  socket.end(() => process.exit(0));
});
socket.on("error", () => process.exit(5));
