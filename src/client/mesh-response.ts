/** The two fields of a Response that its constructor does not take. */
export interface Origin {
  readonly url: string;
  readonly redirected: boolean;
}

type Body = ReadableStream | Uint8Array | null;
type MeshResponseClass = new (body: Body, init: ResponseInit, origin: Origin) => Response;

let defined: MeshResponseClass | undefined;

/**
 * Gives the class of the Responses that a fetch resolves with. It is defined at the first of them:
 * a use of the global Response makes Node load its fetch, and register a dispatcher for it.
 */
export function meshResponseClass(): MeshResponseClass {
  defined ??= defineMeshResponse();
  return defined;
}

function defineMeshResponse(): MeshResponseClass {
  // The types of Response declare its accessors and methods as properties, and TypeScript lets no
  // subclass replace a property by an accessor or a method. The constructor is that of Response.
  const Base = Response as unknown as new (body: Body, init: ResponseInit) => object;
  const placeholder = new PlaceholderBody();
  const utf8 = new TextDecoder();

  /**
   * Is a Response as if it had been fetched. A Response turns its bytes into a stream at once,
   * which costs more than all else about it. Here the text and the JSON of a body of bytes are read
   * without one; any other use of the body makes it.
   */
  class MeshResponse extends Base {
    readonly #init: ResponseInit;
    readonly #origin: Origin;
    readonly #bytes: Uint8Array | undefined;
    #read = false;
    /** The Response that has the body, unless the body is bytes of which no stream was made yet. */
    #native: Response | undefined;

    constructor(body: Body, init: ResponseInit, origin: Origin) {
      super(body === null ? null : placeholder.stream, init);
      this.#init = init;
      this.#origin = origin;
      this.#bytes = body instanceof Uint8Array ? body : undefined;
      this.#native = body instanceof Uint8Array ? undefined : new Response(body, init);
    }

    get url(): string {
      return this.#origin.url;
    }

    get redirected(): boolean {
      return this.#origin.redirected;
    }

    get type(): Response['type'] {
      return 'basic';
    }

    get body(): Response['body'] {
      return this.#toNative().body;
    }

    get bodyUsed(): boolean {
      return this.#native?.bodyUsed ?? this.#read;
    }

    async json(): Promise<unknown> {
      return this.#native === undefined ? JSON.parse(this.#decode()) : this.#native.json();
    }

    async text(): Promise<string> {
      return this.#native === undefined ? this.#decode() : this.#native.text();
    }

    async arrayBuffer(): Promise<ArrayBuffer> {
      return this.#toNative().arrayBuffer();
    }

    async bytes(): Promise<Uint8Array<ArrayBuffer>> {
      return new Uint8Array(await this.arrayBuffer());
    }

    async blob(): Promise<Blob> {
      return this.#toNative().blob();
    }

    async formData(): Promise<FormData> {
      return this.#toNative().formData();
    }

    clone(): Response {
      return this.#withBody(this.#toNative().clone().body);
    }

    #withBody(body: Body): Response {
      return new (meshResponseClass())(body, this.#init, this.#origin);
    }

    #decode(): string {
      if (this.#read) throw new TypeError('the body of the response has already been read');
      this.#read = true;
      return utf8.decode(this.#bytes);
    }

    #toNative(): Response {
      if (this.#native === undefined) {
        this.#native = new Response(this.#bytes, this.#init);
        if (this.#read) void this.#native.arrayBuffer();
      }
      return this.#native;
    }
  }
  // The class has all members of a Response: it inherits those that it does not replace.
  return MeshResponse as unknown as MeshResponseClass;
}

/**
 * The body that the inherited part of a Response of bytes has. Its own methods never read it. The
 * methods of another Response, called on it, fail with an error instead of giving an empty body.
 */
class PlaceholderBody {
  #stream: ReadableStream | undefined = undefined;

  get stream(): ReadableStream {
    if (this.#stream === undefined || this.#stream.locked) this.#stream = this.#create();
    return this.#stream;
  }

  #create(): ReadableStream {
    return new ReadableStream(
      {
        pull: (controller) => {
          this.#stream = undefined;
          controller.error(new TypeError('the body can only be read by the methods of the Response itself'));
        },
      },
      { highWaterMark: 0 },
    );
  }
}
