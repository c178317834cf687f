// Verifies an access token as any JavaScript service would: the published keys, and nothing of ours.
// Usage: node verify.mjs JWKS_URL ISSUER AUDIENCE TOKEN
import { createRemoteJWKSet, jwtVerify } from "jose";

const [jwksUrl, issuer, audience, token] = process.argv.slice(2);
try {
  const { payload, protectedHeader } = await jwtVerify(token, createRemoteJWKSet(new URL(jwksUrl)), {
    issuer,
    audience,
    typ: "at+jwt",
    requiredClaims: ["sub", "client_id", "jti", "iat", "exp"],
  });
  console.log(JSON.stringify({ payload, protectedHeader }));
} catch (error) {
  console.log(JSON.stringify({ error: error.code }));
  process.exitCode = 3;
}
