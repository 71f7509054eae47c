//! Texts about the link itself.

use super::Text;

/// The title of a token that was never issued.
pub(in super::super) const UNKNOWN: Text = Text {
    en: "Unknown link",
    de: "Unbekannter Link",
    fr: "Lien inconnu",
    es: "Enlace desconocido",
    it: "Link sconosciuto",
    nl: "Onbekende link",
    pt: "Link desconhecido",
    pl: "Nieznany link",
    ja: "不明なリンク",
    zh: "未知链接",
    ar: "رابط غير معروف",
};

/// The text of a token that was never issued.
pub(in super::super) const COPIED_WHOLE: Text = Text {
    en: "We couldn't find this link. Please check that you copied all of it.",
    de: "Dieser Link wurde nicht gefunden. Bitte prüfen Sie, ob Sie ihn vollständig kopiert haben.",
    fr: "Ce lien est introuvable. Veuillez vérifier que vous l’avez copié en entier.",
    es: "No hemos encontrado este enlace. Compruebe que lo ha copiado completo.",
    it: "Questo link non è stato trovato. Verificare di averlo copiato per intero.",
    nl: "Deze link is niet gevonden. Controleer of u de link volledig hebt gekopieerd.",
    pt: "Este link não foi encontrado. Verifique se o copiou por completo.",
    pl: "Nie znaleziono tego linku. Sprawdź, czy został skopiowany w całości.",
    ja: "このリンクは見つかりませんでした。リンク全体がコピーされているかご確認ください。",
    zh: "找不到此链接。请检查是否已完整复制。",
    ar: "تعذر العثور على هذا الرابط. يرجى التأكد من نسخه بالكامل.",
};

/// The link was opened more often than the limit allows; the page reloads.
pub(in super::super) const TOO_OFTEN: Text = Text {
    en: "This link was opened too often. This page refreshes automatically.",
    de: "Dieser Link wurde zu oft geöffnet. Diese Seite aktualisiert sich von selbst.",
    fr: "Ce lien a été ouvert trop souvent. Cette page s’actualise automatiquement.",
    es: "Este enlace se ha abierto demasiadas veces. Esta página se actualiza automáticamente.",
    it: "Questo link è stato aperto troppe volte. Questa pagina si aggiorna automaticamente.",
    nl: "Deze link is te vaak geopend. Deze pagina wordt automatisch vernieuwd.",
    pt: "Este link foi aberto demasiadas vezes. Esta página é atualizada automaticamente.",
    pl: "Ten link był otwierany zbyt często. Ta strona odświeża się automatycznie.",
    ja: "このリンクへのアクセスが多すぎます。このページは自動的に更新されます。",
    zh: "此链接打开过于频繁。本页面会自动刷新。",
    ar: "تم فتح هذا الرابط مرات كثيرة جدًا. يتم تحديث هذه الصفحة تلقائيًا.",
};

/// The title where the stored address does not lead to the payment service.
pub(in super::super) const CANT_BE_OPENED: Text = Text {
    en: "This link can't be opened",
    de: "Dieser Link kann nicht geöffnet werden",
    fr: "Ce lien ne peut pas être ouvert",
    es: "No se puede abrir este enlace",
    it: "Impossibile aprire questo link",
    nl: "Deze link kan niet worden geopend",
    pt: "Não é possível abrir este link",
    pl: "Nie można otworzyć tego linku",
    ja: "このリンクは開けません",
    zh: "无法打开此链接",
    ar: "لا يمكن فتح هذا الرابط",
};

/// The text where the stored address does not lead to the payment service.
pub(in super::super) const LEADS_ELSEWHERE: Text = Text {
    en: "It does not lead to a payment page of this shop. Please contact the shop.",
    de: "Er führt nicht zu einer Zahlungsseite dieses Shops. Bitte wenden Sie sich an den Shop.",
    fr: "Il ne mène pas à une page de paiement de cette boutique. Veuillez contacter la boutique.",
    es: "No lleva a una página de pago de esta tienda. Póngase en contacto con la tienda.",
    it: "Non porta a una pagina di pagamento di questo negozio. Contattare il negozio.",
    nl: "De link leidt niet naar een betaalpagina van deze winkel. Neem contact op met de winkel.",
    pt: "O link não leva a uma página de pagamento desta loja. Fale com a loja.",
    pl: "Nie prowadzi on do strony płatności tego sklepu. Skontaktuj się ze sklepem.",
    ja: "このショップのお支払いページにつながっていません。ショップにお問い合わせください。",
    zh: "该链接未指向此商店的付款页面。请联系商店。",
    ar: "لا يؤدي هذا الرابط إلى صفحة دفع تابعة لهذا المتجر. يرجى الاتصال بالمتجر.",
};
