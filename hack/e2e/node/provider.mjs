// node oidc-provider as the end-to-end tests want it. It listens on a loopback
// port of its own, which it prints; the test's TLS front stands before it and
// counts requests.
//
//   ISSUER   the front's URL
//   CLIENTS  {"client id": [seconds of the first ID token, seconds of renewed ones]}
//
// A file named granted beside this one holds a group that the person has, too.
import { existsSync, readFileSync } from 'node:fs';
import { Provider } from 'oidc-provider';

const { ISSUER, CLIENTS } = process.env;
const clients = JSON.parse(CLIENTS);

const provider = new Provider(ISSUER, {
  clients: Object.keys(clients).map((id) => ({
    client_id: id,
    token_endpoint_auth_method: 'none',
    application_type: 'native',
    grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
    response_types: [],
    redirect_uris: [],
  })),
  features: {
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    devInteractions: { enabled: true },
    userinfo: { enabled: true },
  },
  scopes: ['openid', 'offline_access'],
  claims: { openid: ['sub', 'groups'] },
  // Else claims other than sub are in the user info only.
  conformIdTokenClaims: false,
  findAccount: (ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, groups: ['developers', 'on-call', ...(existsSync('granted') ? [readFileSync('granted', 'utf8')] : [])] }),
  }),
  issueRefreshToken: (ctx, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  rotateRefreshToken: true,
  ttl: {
    AccessToken: 600,
    DeviceCode: 120,
    Grant: 3600,
    IdToken(ctx, token, client) {
      const [first, renewed] = clients[client.clientId];
      return ctx.oidc.params?.grant_type === 'refresh_token' ? renewed : first;
    },
    Interaction: 600,
    RefreshToken: 3600,
    Session: 600,
  },
  cookies: { keys: ['only for the test'] },
});
provider.proxy = true;

const server = provider.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port }));
});
