/** The issuer of the tokens that the clients of the gateway have. */
export const ISSUER = { issuer: 'https://id.example', audience: 'shop' } as const;
