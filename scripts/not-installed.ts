/**
 * Declares what the programs of docs/ import of packages that the repository lacks, or whose types it lacks: it may be
 * anything, or has the least that they need, so that all else in them is checked here. Only check-package.ts compiles
 * them with the real types.
 */
export const NOT_INSTALLED = `
declare module '@nestjs/axios';
declare module '@nestjs/common' {
  export const Catch: any, Controller: any, Get: any, Global: any, Inject: any, Injectable: any, Module: any;
  export const NotFoundException: any, Param: any;
  export type ArgumentsHost = any;
  export type ExceptionFilter<T> = any;
}
declare module '@nestjs/core' {
  export const APP_FILTER: any, NestFactory: { create<App = any>(...options: any[]): Promise<App> };
}
declare module '@nestjs/platform-fastify' {
  export const FastifyAdapter: any;
  export type NestFastifyApplication = any;
}
declare module '@nestjs/testing';
declare module 'drizzle-orm';
declare module 'drizzle-orm/node-postgres' {
  export interface NodePgDatabase {
    execute(query: any): Promise<any>;
    transaction<T>(run: (tx: any) => Promise<T>): Promise<T>;
  }
}
declare module 'opossum';
declare module 'postgres' {
  namespace postgres {
    interface ISql {
      unsafe(query: string, parameters?: any[]): Promise<any>;
    }
    type ParameterOrJSON<T> = any;
    interface Sql extends ISql {
      begin<T>(run: (tx: TransactionSql) => Promise<T>): Promise<T>;
    }
    interface TransactionSql extends ISql {}
  }
  const postgres: any;
  export default postgres;
}
declare module 'reflect-metadata';
`;
